"""What `schedule run` does: the work of a night, week or month, as one entry of the history."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from compose_chap.alarms.ping import Signal, ping
from compose_chap.cli.alarms import Alarms
from compose_chap.cli.call import Call
from compose_chap.cli.recorded import recorded
from compose_chap.cli.screen import schedule as screen
from compose_chap.errors import Cancelled, Locked, ScheduleError, StateError
from compose_chap.model import Origin
from compose_chap.records import audit, lock
from compose_chap.schedule import plan, routine, signs, work
from compose_chap.schedule.plan import NIGHTLY, WEEKLY, Schedule


def run(call: Call, directory: Path, origin: Origin, schedule: Schedule, kind: str) -> None:
    """Do the work of a kind, write it down, and tell monitor and people what changed.

    Raise ScheduleError when a part failed, and Locked when the same work is still under way: a first copy may take
    longer than a day, and cron starts the next night anyway.
    """
    alarms = Alarms(call, directory, origin, schedule)
    mark = _mark(call, directory, kind)
    if mark and lock.in_use(mark):
        # Work that hangs for days is worth an alarm.
        alarms.raise_for(signs.at_begin(audit.entries(directory, origin), kind, call.clock()))
        raise Locked(
            f"The {kind} work is still under way.", state="Nothing was begun.", hint="See it: docker chap history"
        )
    with lock.claimed(mark) if mark else nullcontext():
        try:
            _run(call, alarms, kind)
        except KeyboardInterrupt:
            state = "What was done before stays, such as a new backup. To see it: docker chap backups"
            raise Cancelled("Cancelled.", state=state) from None


def _mark(call: Call, directory: Path, kind: str) -> Path | None:
    """Return the mark of work that is under way; None, with a warning, where there is no room for it."""
    try:
        return plan.mark(directory, kind)
    except StateError as error:
        # The work, and the alarm when it fails, are needed even more then.
        call.tell(f"Warning: cannot record that the work is under way. {error.message}")
        return None


def _run(call: Call, alarms: Alarms, kind: str) -> None:
    world, directory, origin, schedule = call.world(), alarms.directory, alarms.origin, alarms.schedule
    earlier = audit.entries(directory, origin)
    with recorded(call, directory, origin) as attempt:
        attempt.learn(kind, kind=kind)
        if kind == NIGHTLY:
            _tell_monitor(call, schedule, Signal.START)
        alarms.raise_for(signs.at_begin(earlier, kind, call.clock()))
        outcomes = work.run(schedule, kind, world.clock, lambda part: world.notify("schedule", part))
        attempt.learn(
            screen.in_short(kind, outcomes),
            parts=[outcome.to_json() for outcome in outcomes],
        )
        failed = any(outcome.failed for outcome in outcomes)
        # What failed in the week or the month stays a failure until that is done well.
        others = routine.failures(directory, origin, besides=kind)
        text = "\n".join([screen.outcomes_text(outcomes), *others])
        _tell_monitor(call, schedule, Signal.FAIL if failed or others else Signal.SUCCESS, text)
        space = signs.of_space(work.ask_status(schedule)) if kind == NIGHTLY else []
        alarms.raise_for([*signs.at_end(kind, outcomes), *space], weekly=kind == WEEKLY)
        if failed:
            raise ScheduleError(
                f"The {kind} work failed in part.\n{screen.outcomes_text(outcomes)}",
                hint="Fix what failed, then: docker chap schedule run " + kind,
            )
    call.result(
        {"kind": kind, "parts": [outcome.to_json() for outcome in outcomes]},
        f"The {kind} work is done.\n{screen.outcomes_text(outcomes)}",
    )


def _tell_monitor(call: Call, schedule: Schedule, signal: Signal, reason: str = "") -> None:
    if schedule.ping and (why := ping(schedule.ping, signal, reason)):
        call.tell(f"Warning: the monitor was not reached: {why}.")
