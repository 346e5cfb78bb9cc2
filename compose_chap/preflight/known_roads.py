"""Upgrade paths from one release of CHAP to another that are known to fail, as data. A new one is a few lines here.

All were seen with the real packages, unless `evidence` says otherwise. Other paths are judged by what we observe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compose_chap import revisions
from compose_chap.transaction.data import repairs

ANY = "0.0.0"
EVER = "999.0.0"


@dataclass(frozen=True)
class RoadFacts:
    """Facts of a stack: Alembic's marks, backtests and templates with a prediction length, unpinned models.

    Each of `unpinned` is a line for people: file, model, label and reference.
    """

    marks: tuple[str, ...]
    backtests: int
    lengths: int
    unpinned: tuple[str, ...]


@dataclass(frozen=True)
class Road:
    """A path from releases (first and last, both included) to others that fails where `on` is true of the stack.

    `what` is the fault, and `instead` the good path; `{now}`, `{target}` and `{facts}` are filled in; `summary` is
    short. `allow` is the flag to go anyway: without one it is a warning. `afterwards` is the hint when
    the API ended at its start with a reason that contains `words`. `repaired` says what `--repair` does about it.
    `evidence` is how this is known.
    """

    name: str
    summary: str
    now: tuple[str, str]
    target: tuple[str, str]
    on: Callable[[RoadFacts], bool]
    what: str
    instead: str
    evidence: str
    allow: str = ""
    words: str = ""
    afterwards: str = ""
    repaired: str = ""


def _target_column(now: tuple[str, str], afterwards: str) -> Road:
    return Road(
        repairs.TARGET_COLUMN,
        "an API that fails to start",
        now,
        target=("2.4.0", EVER),
        on=lambda facts: facts.backtests > 0,
        what="As far as is known, {target} fails to start on a database of {now} with backtests: its migration does"
        " not fill backtestspecification.target_column. Then everything is put back as it is now.",
        instead="Let the upgrade make that table first: --repair. Try it: docker chap rehearse v{target} --repair",
        evidence="revision f2a3b4c5d6e1 as it is public, run with the real packages of 2.4.0 and 2.5.1",
        words="target_column",
        afterwards=afterwards,
        repaired="As far as is known, {target} fails to start on a database of {now} with backtests. So the table"
        " backtestspecification is made before it starts, with a default for target_column, which is taken away after"
        " the migration.",
    )


ROADS = (
    Road(
        "uncommitted_migration",
        "v2.2.0 to v2.3.0 or v2.3.1, whose migration is not committed",
        now=("2.2.0", "2.2.0"),
        target=("2.3.0", "2.3.1"),
        on=lambda facts: bool(facts.marks),
        what="{target} does not commit the migration of a database that {now} has made, and does not report it:"
        " afterwards no backtest can be read or saved.",
        instead="Go to v2.4.0 or later. With backtests: docker chap upgrade v2.5.1 --repair",
        evidence="2.2.0 -> 2.3.0 and 2.3.1, run with the real packages",
        allow="--allow-uncommitted-migration",
    ),
    Road(
        repairs.HALF_MIGRATED,
        "v2.3.x that was not migrated to v2.4.0 or later",
        now=("2.3.0", "2.3.1"),
        target=("2.4.0", EVER),
        on=lambda facts: revisions.OF_2_2_0 in facts.marks and facts.backtests > 0,
        what="The database was not migrated when CHAP went from v2.2.0 to {now}. Where somebody tried an old"
        " backtest again since, {target} fails to start on it (UniqueViolation in backtestspecification).",
        instead="Let the upgrade remove what such a backtest left: --repair.",
        evidence="2.2.0 -> 2.3.1 -> 2.5.1, run with the real packages",
        allow="--allow-half-migrated",
        words="uq_backtestspecification_params",
        afterwards="Let the upgrade remove what failed backtests left: docker chap upgrade v{target} --repair",
        repaired="The database was not migrated when CHAP went from v2.2.0 to {now}. What failed backtests left in"
        " backtestspecification is removed before {target} starts, which then migrates it.",
    ),
    Road(
        repairs.OLD_MARK,
        "Alembic's revision is too old for v2.2.0 or later",
        now=(ANY, EVER),
        target=("2.2.0", EVER),
        on=lambda facts: bool(set(facts.marks) & set(revisions.OLD)),
        what="Alembic's revision in the database ({facts.marks[0]}) is older than the one that v2.1.0 uses: {target}"
        " would migrate from there, and fail on what exists already.",
        instead="Let the upgrade drop the table alembic_version, which up to v2.1.0 CHAP does not use: --repair."
        " A rollback brings it back.",
        evidence="databases that booted v1.1.1 to v1.1.4, run with 2.2.0 and 2.5.1; with the table dropped they"
        " upgrade",
        allow="--allow-old-mark",
        repaired="The table alembic_version, which up to v2.1.0 CHAP does not use, is dropped before {target} starts.",
    ),
    Road(
        "unpinned_models",
        "configured models that name a branch or short commit, to v2.4.0 or later",
        now=(ANY, EVER),
        target=("2.4.0", EVER),
        on=lambda facts: bool(facts.unpinned),
        what="From v2.4.0 on CHAP fails to start where a file of configured models names a branch, a tag or a short"
        " commit: {facts.unpinned}.",
        instead="Name the full commit (40 digits) in that file: git ls-remote URL. Or give the model a new version with"
        " a full commit, and take the old one out.",
        evidence="chap_core/models/local_configuration.py of 2.4.0",
        allow="--allow-unpinned-models",
    ),
    _target_column(
        now=(ANY, "2.1.0"),
        afterwards="Go to v2.3.1 first: docker chap upgrade v2.3.1. Then: docker chap upgrade v{target}\n"
        "Or let the upgrade make that table before it starts: docker chap upgrade v{target} --repair",
    ),
    _target_column(
        now=("2.2.0", "2.2.0"),
        # Neither v2.3.0 nor v2.3.1 is a stop here: they do not commit the migration.
        afterwards="Let the upgrade make that table before it starts: docker chap upgrade v{target} --repair",
    ),
    Road(
        repairs.PREDICTION_LENGTH,
        "prediction lengths become 0",
        now=(ANY, "2.1.0"),
        target=("2.2.0", EVER),
        on=lambda facts: facts.lengths > 0,
        what="A fault of CHAP's migration (since v2.2.0) turns the prediction lengths of model templates"
        " (here {facts.lengths}) into 0, for good.",
        instead="Let the upgrade put the values back: --repair. Without it, the upgrade prints the SQL that does.",
        evidence="2.1.0 -> 2.2.0 and 2.5.1, run with the real packages",
        repaired="A fault of CHAP's migration (since v2.2.0) turns the prediction lengths of model templates"
        " (here {facts.lengths}) into 0. They are put back right after it.",
    ),
    Road(
        "mark_behind",
        "Alembic's revision stays behind",
        now=("2.3.0", "2.3.0"),
        target=("2.3.1", "2.3.1"),
        on=lambda facts: bool(facts.marks),
        what="{target} does not commit its migration of a database of {now}, so that Alembic's revision stays behind."
        " That does no harm: it concerns one column that may be empty.",
        instead="Go to v2.4.0 or later, or ignore it: the next upgrade repairs it.",
        evidence="2.3.0 -> 2.3.1, run with the real packages",
    ),
)
