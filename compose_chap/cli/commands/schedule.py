"""The command of the work of every night, week and month: schedule."""

from __future__ import annotations

import os
from pathlib import Path

import click

from compose_chap.alarms import addresses, ledger
from compose_chap.cli.alarms import Alarms, Listeners
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command
from compose_chap.cli.commands import schedule_on, schedule_run
from compose_chap.cli.options import allow_unmounted_option, output_option
from compose_chap.cli.recorded import recorded, records_of
from compose_chap.cli.screen import schedule as screen
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.store import Store, limit_option, to_repository
from compose_chap.cli.values import files
from compose_chap.copies.repository import absolute_location, read_keys
from compose_chap.errors import EngineError, StackError, UsageError
from compose_chap.model import Origin
from compose_chap.records import audit
from compose_chap.schedule import plan, routine, timers
from compose_chap.schedule.amend import REMOVABLE, Given
from compose_chap.schedule.digest import WEEKLY
from compose_chap.schedule.plan import KINDS, NIGHTLY, Schedule
from compose_chap.schedule.timers import Timers

_ACTIONS = ("on", "off", "run")


@command("schedule")
@click.argument("action", type=click.Choice(_ACTIONS), required=False, metavar="[on|off|run]")
@click.argument("kind", type=click.Choice(KINDS), required=False, metavar="[nightly|weekly|monthly]")
@click.option("--at", metavar="HH:MM", help="When the nightly work begins, by this machine's clock. At first: 01:30.")
@click.option("--with-dhis2", is_flag=True, help="Include DHIS2's database in the backups.")
@click.option("--with-volumes", is_flag=True, help="Include logs, runs and the data of model services in the backups.")
@to_repository("--copy-to")
@limit_option(default=None)
@click.option(
    "--metrics-file", default="", shell_complete=files, metavar="FILE", help="Write a file for Prometheus each time."
)
@click.option(
    "--ping",
    default="",
    metavar="URL",
    help="Tell this monitor how it ended, by the protocol of healthchecks.io.",
)
@click.option(
    "--alarm",
    multiple=True,
    metavar="URL",
    help="Send alarms there: mailtos://, ntfys://, tgram://, slack:// and others, as Apprise has them. Repeatable;"
    " replaces all earlier addresses.",
)
@click.option(
    "--alarm-file",
    default="",
    shell_complete=files,
    metavar="FILE",
    help="A file with such addresses, one a line, that only you can read.",
)
@click.option(
    "--digest",
    type=click.Choice([WEEKLY]),
    metavar="weekly",
    help="Send a summary each week, too.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(REMOVABLE),
    metavar="SETTING",
    help=f"Take a setting away: {', '.join(REMOVABLE)}. Repeatable.",
)
@click.option(
    "--by",
    type=click.Choice(["systemd", "cron"]),
    metavar="KIND",
    help="What starts the work: systemd or cron. At first: systemd where it runs, else cron.",
)
@output_option
@allow_unmounted_option
@click.option("--test-alarm", is_flag=True, help="Send a test to every address and to the monitor.")
@click.option("--sheet", is_flag=True, help="Show the recovery sheet again, with the password of the copies.")
@common
def schedule_command(
    call: Call,
    action: str | None,
    kind: str | None,
    at: str | None,
    with_dhis2: bool,
    with_volumes: bool,
    store: Store,
    limit_upload: int | None,
    metrics_file: str,
    ping: str,
    alarm: tuple[str, ...],
    alarm_file: str,
    digest: str | None,
    without: tuple[str, ...],
    by: str | None,
    output: Path | None,
    allow_unmounted: bool,
    test_alarm: bool,
    sheet: bool,
) -> None:
    """Back up, copy, prune and test on a schedule; show the schedule.

    `schedule on` makes timers of systemd, or lines for cron. Nightly: backup, copy, prune. Weekly: the newest backup is
    test-restored, and a part of the repository is read back. Monthly: a copy is brought back from the repository,
    test-restored, and every table compared. `schedule` shows the last and the next run, `schedule off` removes the
    timers, and `schedule run` does the work now. `docker chap history` has an entry for each run, and for each of its
    parts.

    `schedule on` again changes only the settings that are given. --without takes one away.

    An alarm is sent when something fails that worked before, and when it works again: not each night. --test-alarm
    tries every address.

    With --copy-to and without a password, a password is made. A new repository gets a recovery sheet: print it.
    """
    given = Given(
        at=plan.time_of_day(at) if at is not None else None,
        with_dhis2=with_dhis2,
        with_volumes=with_volumes,
        **_of_store(store),
        limit_upload=limit_upload,
        output=os.path.abspath(output) if output else "",
        metrics_file=os.path.abspath(metrics_file) if metrics_file else "",
        ping=ping,
        digest=digest or "",
        without=frozenset(without),
    )
    listeners = Listeners(ping, alarm, alarm_file)
    given_any = given != Given() or listeners != Listeners() or by
    if kind and action != "run" or given_any and action != "on" or (test_alarm or sheet) and action:
        raise UsageError(
            "Options belong to `schedule on`, --test-alarm and --sheet to `schedule`, a kind of work to `schedule run`."
        )
    if action == "on":
        schedule_on.switch_on(call, given, listeners, by or "", allow_unmounted=allow_unmounted)
    elif action == "off":
        _off(call)
    elif action == "run":
        schedule_run.run(call, *_scheduled(call), kind or NIGHTLY)
    elif test_alarm:
        Alarms(call, *_scheduled(call)).test()
    elif sheet:
        schedule_on.show_sheet(call, _scheduled(call)[2])
    else:
        _show(call)


def _of_store(store: Store) -> dict[str, str]:
    """Return what was given about the repository, as settings. Its location may be in the file of keys."""
    password, keys = (os.path.abspath(file) if file else "" for file in (store.password_file, store.keys_file))
    given = {"password_file": password, "keys_file": keys}
    if store.location or (keys and "RESTIC_REPOSITORY" in read_keys(Path(keys))):
        given["repository"] = absolute_location(store.location)
    return given


def _off(call: Call) -> None:
    directory, origin = records_of(call)
    schedule = plan.read(directory)
    if schedule is None:
        call.result({"changed": False}, screen.NOTHING)
        return
    schedule_on.refuse_others(schedule)
    with recorded(call, directory, origin) as attempt:
        timers.timers(schedule.by).remove(schedule.project)
        plan.remove(directory)
        addresses.write(directory, ())
        ledger.remove(directory)
        attempt.learn("off")
    text = screen.OFF
    if schedule.store:
        text += f" The password of the copies stays too, in {schedule.store.password_file}."
    call.result({"changed": True}, paragraph(text))


def _scheduled(call: Call) -> tuple[Path, Origin, Schedule]:
    """Return the stack that is meant, and its schedule. Raise StackError where there is none."""
    directory, origin = records_of(call)
    schedule = plan.read(directory)
    if schedule is None:
        raise StackError(
            "Nothing is scheduled for this stack.", state="Nothing was done.", hint="Begin it: docker chap schedule on"
        )
    return directory, origin, schedule


def _show(call: Call) -> None:
    directory, origin = records_of(call)
    schedule = plan.read(directory)
    if schedule is None:
        call.result({"scheduled": None}, f"{screen.NOTHING} Begin it: docker chap schedule on")
        return
    trail = audit.entries(directory, origin)
    kinds = routine.kinds_of_work(trail, schedule, _starter(call, schedule), call.clock())
    document = screen.schedule_document(schedule, kinds)
    heard = Alarms(call, directory, origin, schedule).document()
    call.result({"scheduled": {**document, **heard}}, screen.schedule_text(schedule, kinds, heard, call.clock()))


def _starter(call: Call, schedule: Schedule) -> Timers | None:
    """Return what starts the work; None, with a warning, where that is no longer on this machine."""
    try:
        return timers.timers(schedule.by)
    except EngineError as error:
        call.tell(f"Warning: {error.message}")
        return None
