"""The command of the work of every night, week and month: schedule."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import click

from compose_chap.alarms import addresses, ledger
from compose_chap.cli import schedule_run
from compose_chap.cli.alarms import Alarms, Listeners
from compose_chap.cli.call import Call, common
from compose_chap.cli.commands import command
from compose_chap.cli.copies import Store, limit_option, to_repository, warn_of_same_disk
from compose_chap.cli.options import output_option
from compose_chap.cli.recorded import recorded, records_of
from compose_chap.cli.screen import schedule as screen
from compose_chap.cli.screen.layout import paragraph
from compose_chap.cli.screen.schedule import KindOfWork
from compose_chap.cli.values import files
from compose_chap.copies.repository import PASSWORDS, absolute_location, read_keys, read_password, repository
from compose_chap.copies.restic import Restic
from compose_chap.errors import ChapError, EngineError, StackError, StateError, UsageError
from compose_chap.model import Origin, Stack
from compose_chap.operations import guard
from compose_chap.ownership import user_name
from compose_chap.records import audit
from compose_chap.records.files import own_folder
from compose_chap.records.run_records import FOLDER
from compose_chap.schedule import plan, routine, sheet, timers
from compose_chap.schedule.digest import WEEKLY
from compose_chap.schedule.plan import KINDS, NIGHTLY, PASSWORD_FILE, CopyStore, Schedule
from compose_chap.schedule.timers import Timers
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of

_ACTIONS = ("on", "off", "run")


@command("schedule")
@click.argument("action", type=click.Choice(_ACTIONS), required=False, metavar="[on|off|run]")
@click.argument("kind", type=click.Choice(KINDS), required=False, metavar="[nightly|weekly|monthly]")
@click.option("--at", metavar="HH:MM", help="When the nightly work begins, by this machine's clock. Default: 01:30.")
@to_repository("--copy-to")
@limit_option
@click.option(
    "--metrics-file", default="", shell_complete=files, metavar="FILE", help="Write a file for Prometheus each time."
)
@click.option(
    "--ping",
    "monitor",
    default="",
    metavar="URL",
    help="Tell this monitor how it ended, by the protocol of healthchecks.io.",
)
@click.option(
    "--alarm",
    multiple=True,
    metavar="URL",
    help="Send an alarm there: mailtos://, ntfys://, tgram://, slack:// and others, as Apprise has them. Repeatable.",
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
@click.option("--test-alarm", is_flag=True, help="Send a test to every address and to the monitor.")
@click.option(
    "--by",
    type=click.Choice(["systemd", "cron"]),
    metavar="KIND",
    help="What starts the work: systemd or cron. Default: systemd where it runs, else cron.",
)
@output_option
@common
def schedule_command(
    call: Call,
    action: str | None,
    kind: str | None,
    at: str | None,
    store: Store,
    limit_upload: int,
    metrics_file: str,
    monitor: str,
    alarm: tuple[str, ...],
    alarm_file: str,
    digest: str | None,
    test_alarm: bool,
    by: str | None,
    output: Path | None,
) -> None:
    """Do every night what has to be done, and show it.

    `schedule on` makes timers of systemd, or lines for cron. Nightly: backup, copy, prune. Weekly: the newest backup is
    test-restored, and a part of the repository is read back. Monthly: a copy is brought back from the repository,
    test-restored, and every table compared. `schedule` shows the last and the next run, `schedule off` removes the
    timers, and `schedule run` does the work now. Each run is one entry of `docker chap history`.

    An alarm is sent when something fails that worked before, and when it works again: not each night. --test-alarm
    tries every address.

    With --copy-to and without a password, a password is made, and a recovery sheet is shown once: print it.
    """
    listeners = Listeners(monitor, alarm, alarm_file, digest or "")
    given = store.named or at or limit_upload or metrics_file or listeners != Listeners() or by or output
    if kind and action != "run" or given and action != "on" or test_alarm and action:
        raise UsageError(
            "Options belong to `schedule on`, --test-alarm to `schedule`, a kind of work to `schedule run`."
        )
    if action == "on":
        _on(call, plan.time_of_day(at or "01:30"), store, limit_upload, metrics_file, listeners, by or "", output)
    elif action == "off":
        _off(call)
    elif action == "run":
        schedule_run.run(call, *_scheduled(call), kind or NIGHTLY)
    elif test_alarm:
        Alarms(call, *_scheduled(call)).test()
    else:
        _show(call)


def _on(
    call: Call,
    at: tuple[int, int],
    store: Store,
    limit_upload: int,
    metrics_file: str,
    listeners: Listeners,
    by: str,
    output: Path | None,
) -> None:
    listeners.check()
    starter = timers.timers(by)
    world, where = call.world(), call.where()
    stack = observe.find_local_stack(world.engine, where)
    directory, origin = stack.project.directory, world.engine.origin(stack.project.name)
    with recorded(call, directory, origin) as attempt, guard.guarded(world, stack, "schedule", 0):
        before = plan.read(directory)
        _refuse_others(before)
        kept = _kept_store(store, directory, limit_upload)
        sheet_text = _opened(call, stack, kept, before) if kept else ""
        schedule = Schedule(
            stack.project.name,
            user_name(os.geteuid()),
            starter.name,
            *at,
            (shutil.which(call.docker[0]) or call.docker[0], *call.docker[1:]),
            (*_options(call), "-p", stack.project.name),
            str(directory),
            kept,
            os.path.abspath(output) if output else "",
            os.path.abspath(metrics_file) if metrics_file else "",
            listeners.monitor,
            listeners.alarm_file(directory),
            listeners.digest,
        )
        timers.refuse_namesake(starter, schedule)
        # First: a timer may begin the work at once.
        earlier = addresses.own(directory)
        addresses.write(directory, listeners.addresses)
        plan.write(directory, schedule)
        try:
            if before and before.by != starter.name:
                timers.timers(before.by).remove(before.project)
            written = starter.install(schedule, timers.environment(where.environment))
        except ChapError:
            plan.write(directory, before) if before else plan.remove(directory)
            addresses.write(directory, earlier)
            raise
        attempt.learn(f"on, by {starter.name}", at=f"{at[0]:02}:{at[1]:02}", timers=written)
    kinds = _kinds(call, schedule, starter, directory, origin)
    heard = Alarms(call, directory, origin, schedule).document()
    text = screen.begun_text(schedule, kinds, heard, sheet_text, call.clock())
    document = {**screen.schedule_document(schedule, kinds), **heard}
    call.result({"scheduled": document, "written": written, "sheet": sheet_text}, text)


def _options(call: Call) -> tuple[str, ...]:
    where = call.where()
    named = [word for file in where.absolute(call.files) for word in ("-f", str(file))]
    named += ["--project-directory", str(where.folder / call.project_directory)] if call.project_directory else []
    named += [word for file in where.absolute(call.env_files) for word in ("--env-file", str(file))]
    return tuple(named)


def _refuse_others(schedule: Schedule | None) -> None:
    if schedule and schedule.user != user_name(os.geteuid()):
        raise StateError(
            f"The schedule of this stack is that of the user {schedule.user}.",
            state="Nothing was changed.",
            hint=f"Remove it as that user first: sudo -u {schedule.user} docker chap schedule off",
        )


def _kept_store(store: Store, directory: Path, limit_upload: int) -> CopyStore | None:
    """Return where copies go, with every password and key in a file; a password is made where none is given."""
    if not store.named:
        if limit_upload:
            raise UsageError("--limit-upload is about copies.", hint="Name where they go: --copy-to REPOSITORY")
        return None
    password = store.password_file or os.environ.get("RESTIC_PASSWORD_FILE", "")
    own = directory / FOLDER / PASSWORD_FILE
    if not password and not own.exists():
        own_folder.make(own.parent)
        own_folder.write(own, f"{secrets.token_urlsafe(24)}\n".encode())
    absolute = [os.path.abspath(file) if file else "" for file in (password or str(own), store.keys_file)]
    return CopyStore(absolute_location(store.location), absolute[0], absolute[1], limit_upload)


def _opened(call: Call, stack: Stack, kept: CopyStore, before: Schedule | None) -> str:
    """Ask the repository as the work will ask it, make it where it is missing, and return the recovery sheet.

    The sheet is empty when the schedule was on `before` with this repository, as it was shown then.
    """
    asked = repository(kept.repository, kept.password_file, kept.keys_file, timers.environment(os.environ))
    restic = Restic(asked)
    call.world().notify("schedule", f"ask {restic.location}")
    restic.make_if_missing()
    warn_of_same_disk(call, restic, stack.project.directory)
    if before and before.store and replace(before.store, limit_upload=kept.limit_upload) == kept:
        return ""
    server = server_of(call.world().engine, stack)
    password = read_password(Path(kept.password_file))
    keys = set(read_keys(Path(kept.keys_file)) if kept.keys_file else ()) - {*PASSWORDS, "RESTIC_REPOSITORY"}
    return sheet.text(stack, asked, password, keys, server.port, server.admin)


def _off(call: Call) -> None:
    directory, origin = records_of(call)
    schedule = plan.read(directory)
    if schedule is None:
        call.result({"changed": False}, screen.NOTHING)
        return
    _refuse_others(schedule)
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
    kinds = _kinds(call, schedule, _starter(call, schedule), directory, origin)
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


def _kinds(
    call: Call, schedule: Schedule, starter: Timers | None, directory: Path, origin: Origin
) -> dict[str, KindOfWork]:
    trail = audit.entries(directory, origin)
    return {
        kind: KindOfWork(
            starter.next_run(schedule, kind, call.clock()) if starter else None, routine.last_run(trail, kind)
        )
        for kind in KINDS
    }
