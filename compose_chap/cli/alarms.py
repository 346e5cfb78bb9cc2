"""What `schedule` does about alarms: raise them, show what waits, and try every address."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap import units
from compose_chap.alarms import addresses, changes, delivery, ledger, ping, wording
from compose_chap.alarms.changes import Sign
from compose_chap.alarms.ledger import Ledger, Waiting
from compose_chap.alarms.wording import AlarmText
from compose_chap.cli.call import Call
from compose_chap.errors import ScheduleError, StateError, UsageError
from compose_chap.model import Origin
from compose_chap.ownership import user_name
from compose_chap.records import audit
from compose_chap.schedule import digest, routine, signs, work
from compose_chap.schedule.plan import Schedule

if TYPE_CHECKING:
    from compose_chap.alarms.services import Services


@dataclass(frozen=True)
class Listeners:
    """Who hears how the work is: a monitor, and the addresses of alarms, given here or in a file."""

    monitor: str = ""
    addresses: tuple[str, ...] = ()
    file: str = ""

    def check(self) -> None:
        """Raise UsageError for what cannot be reached, whatever happens."""
        if self.monitor and not ping.is_address(self.monitor):
            raise UsageError(
                "The value of --ping is not the address of a monitor.",
                hint="Write it like this: --ping https://hc-ping.com/…",
            )
        if self.addresses and self.file:
            raise UsageError("Use --alarm or --alarm-file, not both.", hint="Write all addresses into the file.")
        if self.addresses or self.file:
            _check_services(self.addresses or addresses.read(Path(self.file)))

    def alarm_file(self, directory: Path) -> str:
        """Return the file with the addresses for a stack, empty for no alarms."""
        return str(addresses.own_file(directory)) if self.addresses else os.path.abspath(self.file) if self.file else ""


def _services() -> AbstractContextManager[Services]:
    # Imported only here: no other command, and no run without an alarm, waits for it.
    from compose_chap.alarms import services

    return services.loaded()


def _check_services(given: tuple[str, ...]) -> None:
    """Raise UsageError for an address that no service understands."""
    with _services() as known:
        for address in addresses.checked(given):
            if why := known.fault(address):
                raise UsageError(
                    f"The alarm's address {addresses.shown(address)} cannot be used: {why}.",
                    state="Nothing was changed.",
                    hint="How to write it for each service: https://appriseit.com/services",
                )


@dataclass(frozen=True)
class Alarms:
    """The alarms of a stack with a schedule. `project` and `origin` say which; its records lie in `directory`."""

    call: Call
    directory: Path
    origin: Origin
    schedule: Schedule

    @property
    def stack(self) -> str:
        """The stack and its server, for people."""
        return f"{self.schedule.project} on {self.origin.server or platform.node()}"

    def raise_for(self, seen: Sequence[Sign], weekly: bool = False) -> None:
        """Send a message if the signs change anything, and all that waits; `weekly` for the summary, if it is wanted.

        What keeps it from being sent is said, and fails nothing.
        """
        if not self.schedule.alarm_file:
            return
        try:
            to = addresses.read(Path(self.schedule.alarm_file))
        except UsageError as error:
            self.call.tell(f"Warning: no alarm can be sent. {error.message} {error.hint}")
            return
        names = tuple(map(addresses.identity, to))
        update = lambda before: self._with_digest(self._changed(before, seen, names), names, weekly)  # noqa: E731
        failures, troubles = delivery.deliver(self.directory, to, update, _services, self.call.clock)
        for trouble in troubles:
            self.call.tell(
                f"Warning: the state of the alarms cannot be written down, so they may come twice. {trouble}"
            )
        for failure in failures:
            self.call.tell(
                f"Warning: an alarm was not sent to {failure.shown}, and is sent with the next run: {failure.why}."
            )

    def _changed(self, before: Ledger, seen: Sequence[Sign], names: tuple[str, ...]) -> Ledger:
        known = signs.subjects(self.schedule)
        now = self.call.clock()
        change = changes.compare([failing for failing in before.failing if failing.subject in known], seen, now)
        after = replace(before, failing=change.failing)
        if not change.began and not change.ended:
            return after
        text = wording.text(self.stack, self.schedule.user, self.schedule.folder, change, self._state(), now)
        return after.with_message(
            Waiting(now, wording.title(self.stack, change), self.call.full_command(text), bool(change.failing), names)
        )

    def _with_digest(self, before: Ledger, names: tuple[str, ...], weekly: bool) -> Ledger:
        now = self.call.clock()
        if not weekly or self.schedule.digest != digest.WEEKLY or not digest.due(before.digest_at, now):
            return before
        try:
            trail = audit.entries(self.directory, self.origin)
            seen = routine.look(self.directory, self.origin, now)
        except StateError as error:
            self.call.tell(f"Warning: the weekly summary could not be made. {error.message}")
            return before
        facts = digest.facts(trail, seen, work.ask_status(self.schedule), now)
        failing = [f"Fails since {units.moment(each.since)}: {each.subject}" for each in before.failing]
        lines = [f"CHAP {self.stack}, the week until {units.moment(now)}", ""]
        text = "\n".join([*lines, *(f"{name}: {value}" for name, value in facts), *(failing or ["Nothing fails."])])
        message = Waiting(now, f"CHAP {self.stack}: the week", text, bool(failing), names)
        return replace(before.with_message(message), digest_at=now)

    def _state(self) -> list[tuple[str, str]]:
        now = self.call.clock()
        try:
            seen = routine.look(self.directory, self.origin, now)
        except StateError as error:
            return [("State", error.message)]
        ages = [("Newest backup", seen.last_backup)]
        ages += [("Newest copy elsewhere", seen.last_copy)] if self.schedule.store else []
        ages += [("Last test restore of a copy", seen.last_drill)] if self.schedule.store else []
        return [(name, units.dated(when, now)) for name, when in ages]

    def document(self) -> dict[str, object]:
        """Return for scripts where alarms go, without what is secret, and what waits. What cannot be read is said."""
        to: tuple[str, ...] = ()
        waiting: tuple[Waiting, ...] = ()
        try:
            to = addresses.read(Path(self.schedule.alarm_file)) if self.schedule.alarm_file else ()
            waiting = ledger.read(self.directory).waiting
        except (UsageError, StateError) as error:
            self.call.tell(f"Warning: {error.message} {error.hint}")
        return {
            "alarms": list(map(addresses.shown, to)),
            "monitor": ping.host(self.schedule.ping) if self.schedule.ping else None,
            "digest": self.schedule.digest or None,
            "undelivered": [{"at": message.at.isoformat(), "title": message.title} for message in waiting],
        }

    def test(self) -> None:
        """Send a test to every address and the monitor, and show what arrived. Raise ScheduleError if any failed."""
        rows = list(self._tests())
        if not rows:
            raise UsageError(
                "No alarm is raised by this schedule.", hint="Name where alarms go: docker chap schedule on --alarm URL"
            )
        lines = [f"{'ARRIVED' if not why else 'FAILED'}  {shown}{f': {why}' if why else ''}" for shown, why in rows]
        results = [{"to": shown, "ok": not why, "why": why} for shown, why in rows]
        if any(why for _, why in rows):
            error = ScheduleError(
                "\n".join(["Not every test arrived.", *lines]),
                state="The schedule is unchanged.",
                hint="Fix the address or the way to it, then: docker chap schedule --test-alarm",
            )
            error.details = {"tests": results}
            raise error
        self.call.result(
            {"tests": results}, "\n".join(lines) + "\n\nThe services accepted it. Check that it reached you too."
        )

    def _tests(self) -> list[tuple[str, str]]:
        now = units.moment(self.call.clock())
        body = f"This is a test, sent by {user_name(os.geteuid())} on {now}. Alarms of this stack arrive here."
        rows = []
        if self.schedule.alarm_file:
            to = addresses.read(Path(self.schedule.alarm_file))
            with _services() as known:
                for address in to:
                    self.call.world().notify("schedule", f"test {addresses.shown(address)}")
                    rows.append(
                        (addresses.shown(address), known.send(address, AlarmText(f"CHAP {self.stack}: a test", body)))
                    )
        if self.schedule.ping:
            rows.append(
                (f"monitor {ping.host(self.schedule.ping)}", ping.ping(self.schedule.ping, ping.Signal.LOG, body))
            )
        return rows
