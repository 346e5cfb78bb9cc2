"""A stack at the beginning of a road, with what it was then, and how it is put back there by hand."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.real.releases import Release
from tests.real.roads import Road
from tests.real.stack import PATIENCE, RealStack
from tests.real.truth import Became, look
from tests.sample.stack import environment

# Kept beside the live database, made before the tool was ever called.
PRISTINE = "as_it_was_at_first"
# CHAP adds to these at its start what the new release brings; the rows of ours in them have these names.
SEEDED = {"modeltemplatedb": ("ewars", "arima"), "configuredmodeldb": ("ewars", "arima:weekly")}


@dataclass(frozen=True)
class Outcome:
    """How a command of the tool ended: its exit status, its document, and all that it printed."""

    status: int
    document: dict[str, Any]
    printed: str


@dataclass
class Journey:
    """A road with a stack of its old release, and what is known of the stack at the beginning."""

    road: Road
    stack: RealStack
    checksum: dict[str, tuple[int, str]] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    # For the table at the end.
    line: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, road: Road, folder: Path) -> Journey:
        """Start the old release, write rows through it, and remember what there is."""
        journey = cls(road, RealStack.of(folder, road.old, road.settings))
        stack = journey.stack
        try:
            stack.up(PATIENCE)
            stack.seed()
            if road.stuck_at:
                stack.sql("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
                stack.sql(f"INSERT INTO alembic_version VALUES ('{road.stuck_at}')")
        except BaseException:
            stack.down()
            raise
        stack.copy_database(stack.database, PRISTINE)
        journey.checksum, journey.columns, journey.files = stack.checksum(), stack.columns(), stack.written()
        journey.others = journey.other_containers()
        return journey

    def other_containers(self) -> dict[str, str]:
        """Return the ids of the containers that no command may touch."""
        writers = (self.stack.api_service, self.stack.worker_service)
        return {name: seen["id"] for name, seen in self.stack.containers().items() if name not in writers}

    def at_the_beginning(self) -> list[str]:
        """Return what is not as it was at the beginning: nothing, if all old means all old."""
        stack, wrong = self.stack, []
        if stack.version() != self.road.old.version:
            wrong.append(f"the API is {stack.version()}")
        if stack.api("/health/ready")[0] != 200:
            wrong.append("it is not ready")
        now = stack.checksum()
        wrong += [
            f"rows of {name} differ"
            for name in sorted({*now, *self.checksum})
            if now.get(name) != self.checksum.get(name)
        ]
        if stack.columns() != self.columns:
            wrong.append("columns differ")
        wrong += [f"{name} differs" for name, content in stack.written().items() if content != self.files[name]]
        if self.other_containers() != self.others:
            wrong.append("other containers were touched")
        return wrong

    def put_back(self) -> None:
        """Bring the stack to the beginning by hand, whatever a test left, so that the next one is about itself."""
        stack = self.stack
        if not self.at_the_beginning():
            return
        stack.compose("stop", "-t", "5", stack.api_service, stack.worker_service, check=False)
        for name, content in self.files.items():
            (stack.folder / name).write_bytes(content)
        stack.sql(f"DROP DATABASE IF EXISTS {stack.database} WITH (FORCE)", "postgres")
        stack.sql(f"CREATE DATABASE {stack.database} TEMPLATE {PRISTINE}", "postgres")
        stack.start()

    def chap(self, *words: str) -> Outcome:
        """Run a command of the tool with --json, as a script does."""
        done = subprocess.run(
            ["docker", "chap", *words, "--json"],
            cwd=self.stack.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = {}
        return Outcome(done.returncode, document, done.stdout + done.stderr)

    def look(self, release: Release) -> Became:
        """Look at the live database under the release that should run now."""
        stack = self.stack
        container = f"{stack.project}-{stack.api_service}-1"
        return look(stack, release, stack.database, lambda path: stack.api(path, timeout=60), container)

    def changed_values(self) -> list[str]:
        """Return the tables in which a row that people wrote differs from the beginning, in the columns still there.

        Rows that a release adds at its start to the tables of its own seeds do not count.
        """
        now = self.stack.columns()
        both = {table: [name for name in names if name in now.get(table, ())] for table, names in self.columns.items()}
        both = {table: names for table, names in both.items() if names and table != "alembic_version"}
        before, after = (self._values(database, both) for database in (PRISTINE, None))
        return sorted(table for table in both if before[table] != after[table])

    def _values(self, database: str | None, columns: dict[str, list[str]]) -> dict[str, object]:
        ours = {table: names for table, names in columns.items() if table not in SEEDED}
        values: dict[str, object] = dict(self.stack.checksum(database, ours))
        for table, names in SEEDED.items():
            row = ", ".join(f'"{name}"' for name in columns[table])
            listed = ", ".join(f"'{name}'" for name in names)
            query = f"SELECT row({row})::text FROM {table} WHERE name IN ({listed}) ORDER BY id"
            values[table] = self.stack.sql(query, database)
        return values

    def lengths(self) -> list[list[str]]:
        """Return the bounds of the horizon of the templates that were written, under the name they have now."""
        unit = "length" if "min_prediction_length" in self.stack.columns()["modeltemplatedb"] else "periods"
        bounds = f"min_prediction_{unit}, max_prediction_{unit}"
        return self.stack.sql(f"SELECT {bounds} FROM modeltemplatedb WHERE name IN ('ewars', 'arima') ORDER BY id")

    def parameters(self) -> list[list[str]]:
        """Return the parameters of the backtests, from the table where they belong from v2.3.0 on."""
        return self.stack.sql(
            "SELECT s.n_periods, s.n_splits, s.stride, s.n_retrain, s.future_weather_provider, b.specification_id"
            " FROM backtest b JOIN backtestspecification s ON s.id = b.specification_id ORDER BY b.id"
        )
