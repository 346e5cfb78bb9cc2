"""What `schedule on` does: change the settings that were given, keep the others, and let the timers follow."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from compose_chap.alarms import addresses
from compose_chap.cli.alarms import Alarms, Listeners
from compose_chap.cli.call import Call
from compose_chap.cli.options import ALLOW_UNMOUNTED
from compose_chap.cli.recorded import recorded
from compose_chap.cli.screen import schedule as screen
from compose_chap.cli.store import warn_of_same_disk
from compose_chap.copies.repository import PASSWORDS, Repository, read_keys, read_password, repository
from compose_chap.copies.restic import Restic
from compose_chap.errors import ChapError, StackError, StateError, UsageError
from compose_chap.model import Role, Stack
from compose_chap.operations import guard
from compose_chap.ownership import user_name
from compose_chap.records import audit
from compose_chap.records.files import own_folder
from compose_chap.records.files.mounted import refuse_unmounted
from compose_chap.records.run_records import FOLDER
from compose_chap.schedule import amend, plan, routine, sheet, timers
from compose_chap.schedule.amend import Difference, Given
from compose_chap.schedule.folders import folder_beside
from compose_chap.schedule.plan import PASSWORD_FILE, CopyStore, Schedule
from compose_chap.schedule.timers import Timers
from compose_chap.stack import observe
from compose_chap.stack.databases import server_of

_AT = (1, 30)


def switch_on(call: Call, given: Given, listeners: Listeners, by: str, *, allow_unmounted: bool) -> None:
    """Make the schedule of a stack, or change the one it has. `by` is what starts the work, empty for as before.

    If it fails, schedule, addresses and timers are as before.
    """
    listeners.check()
    world, where = call.world(), call.where()
    stack = observe.find_local_stack(world.engine, where)
    directory, origin = stack.project.directory, world.engine.origin(stack.project.name)
    with recorded(call, directory, origin) as attempt, guard.guarded(world, stack, "schedule", 0):
        before = plan.read(directory)
        refuse_others(before)
        starter = timers.timers(by or (before.by if before else ""))
        given = replace(given, alarm_file=listeners.alarm_file(directory))
        if given.with_dhis2 and not _has_dhis2(stack):
            raise StackError(
                f"Project '{stack.project.name}' has no database of DHIS2.",
                state="Nothing was changed.",
                hint="Where DHIS2 runs elsewhere, its database needs backups of its own.",
            )
        schedule = amend.merged(_called(call, stack, starter, before), given)
        if allow_unmounted:
            schedule = replace(schedule, environment={**schedule.environment, ALLOW_UNMOUNTED: "1"})
        if not schedule.environment.get(ALLOW_UNMOUNTED):
            # Asked now, by a person: each night would be refused.
            chosen = Path(schedule.output) if schedule.output else None
            refuse_unmounted(folder_beside(directory, chosen, schedule.environment))
        if schedule.store:
            schedule = replace(schedule, store=_with_password(schedule.store, directory))
        sheet_text = _asked(call, stack, schedule, before, given)
        timers.refuse_namesake(starter, schedule)
        earlier = _addresses(before)
        with _put_back(directory, before):
            _write_addresses(directory, schedule, listeners)
            # Before the timers: one may begin the work at once.
            plan.write(directory, schedule)
            written = _install(starter, schedule, before)
        difference = amend.difference(before, schedule, earlier, _addresses(schedule))
        at = f"{schedule.hour:02}:{schedule.minute:02}"
        attempt.learn(f"on, by {starter.name}", at=at, timers=written, **asdict(difference))
    kinds = routine.kinds_of_work(audit.entries(directory, origin), schedule, starter, call.clock())
    heard = Alarms(call, directory, origin, schedule).document()
    notes = list(_notes(stack, schedule, difference))
    shown = difference if before else None
    text = screen.begun_text(schedule, kinds, heard, call.clock(), shown, notes, sheet_text)
    document = {**screen.schedule_document(schedule, kinds), **heard}
    call.result(
        {"scheduled": document, "written": written, "sheet": sheet_text, "notes": notes, **asdict(difference)}, text
    )


def refuse_others(schedule: Schedule | None) -> None:
    """Raise StateError for the schedule of another user."""
    if schedule and schedule.user != user_name(os.geteuid()):
        raise StateError(
            f"The schedule of this stack belongs to the user {schedule.user}.",
            state="Nothing was changed.",
            hint=f"Remove it as that user first: sudo -u {schedule.user} docker chap schedule off",
        )


def show_sheet(call: Call, schedule: Schedule) -> None:
    """Show the recovery sheet again."""
    if not schedule.store:
        raise UsageError("There is no recovery sheet: this schedule makes no copies.", hint=screen.ON_THIS_MACHINE_ONLY)
    stack = observe.find_local_stack(call.world().engine, call.where())
    text = _sheet(call, stack, schedule, schedule.store)
    call.result({"sheet": text}, text)


def _called(call: Call, stack: Stack, starter: Timers, before: Schedule | None) -> Schedule:
    """Return a schedule with how it is called now, and all settings of the one `before`."""
    docker = (shutil.which(call.docker[0]) or call.docker[0], *call.docker[1:])
    project, user = stack.project, user_name(os.geteuid())
    options = _options(call)
    if before and before.project == project.name:
        options = options or before.options[:-2]
    schedule = before or Schedule(project.name, user, starter.name, *_AT, docker, options, str(project.directory))
    return replace(
        schedule,
        project=project.name,
        by=starter.name,
        docker=docker,
        options=(*options, "-p", project.name),
        environment=timers.environment(os.environ, before.environment if before else None),
    )


def _options(call: Call) -> tuple[str, ...]:
    where = call.where()
    named = [word for file in where.absolute(call.files) for word in ("-f", str(file))]
    named += ["--project-directory", str(where.folder / call.project_directory)] if call.project_directory else []
    named += [word for file in where.absolute(call.env_files) for word in ("--env-file", str(file))]
    return tuple(named)


def _with_password(store: CopyStore, directory: Path) -> CopyStore:
    """Return it with the file of its password; a password is made where there is none."""
    if store.password_file:
        return store
    if named := os.environ.get("RESTIC_PASSWORD_FILE", ""):
        return replace(store, password_file=os.path.abspath(named))
    own = directory / FOLDER / PASSWORD_FILE
    if not own.exists():
        own_folder.make(own.parent)
        own_folder.write(own, f"{secrets.token_urlsafe(24)}\n".encode())
    return replace(store, password_file=str(own))


def _asked(call: Call, stack: Stack, schedule: Schedule, before: Schedule | None, given: Given) -> str:
    """Ask the repository as the work will ask it, make it where it is missing, and return the recovery sheet.

    The sheet is empty where it was shown before. What was neither given nor changed is not asked: the link may be down.
    """
    if not schedule.store:
        return ""
    same = amend.same_store(before.store if before else None, schedule.store)
    if same and not given.names_store:
        return ""
    restic = Restic(_repository(schedule))
    call.world().notify("schedule", f"ask {restic.location}")
    restic.make_if_missing()
    warn_of_same_disk(call, restic, stack.project.directory)
    return "" if same else _sheet(call, stack, schedule, schedule.store)


def _repository(schedule: Schedule) -> Repository:
    store = schedule.store or CopyStore("", "")
    return repository(store.repository, store.password_file, store.keys_file, schedule.environment)


def _sheet(call: Call, stack: Stack, schedule: Schedule, store: CopyStore) -> str:
    server = server_of(call.world().engine, stack)
    password = read_password(Path(store.password_file))
    keys = set(read_keys(Path(store.keys_file)) if store.keys_file else ()) - {*PASSWORDS, "RESTIC_REPOSITORY"}
    contents = sheet.CopiedData(schedule.with_dhis2, schedule.with_volumes, _has_dhis2(stack))
    return sheet.text(stack, _repository(schedule), password, keys, server.port, server.admin, contents)


def _has_dhis2(stack: Stack) -> bool:
    return bool(stack.of(Role.DHIS2_DATABASE))


def _notes(stack: Stack, schedule: Schedule, difference: Difference) -> Iterator[str]:
    """Yield what a person should know of what the backups hold."""
    if _has_dhis2(stack) and not schedule.with_dhis2:
        yield screen.WITHOUT_DHIS2
    touched = {*difference.changed, *difference.removed}
    if touched & {"dhis2", "volumes"} and schedule.store and "copy-to" not in touched:
        yield screen.SHEET_CHANGED


def _addresses(schedule: Schedule | None) -> tuple[str, ...]:
    """Return the addresses of alarms, none where they cannot be read."""
    with suppress(UsageError):
        return addresses.read(Path(schedule.alarm_file)) if schedule and schedule.alarm_file else ()
    return ()


def _write_addresses(directory: Path, schedule: Schedule, listeners: Listeners) -> None:
    """Write the addresses that were given into the file of our own, or remove it where no alarm goes by it."""
    if listeners.addresses:
        addresses.write(directory, listeners.addresses)
    elif schedule.alarm_file != str(addresses.own_file(directory)):
        addresses.write(directory, ())


@contextmanager
def _put_back(directory: Path, before: Schedule | None) -> Iterator[None]:
    """Put schedule and addresses back as they were when the block fails."""
    earlier = addresses.own(directory)
    try:
        yield
    except BaseException:
        if before:
            plan.write(directory, before)
        else:
            plan.remove(directory)
        addresses.write(directory, earlier)
        raise


def _install(starter: Timers, schedule: Schedule, before: Schedule | None) -> list[str]:
    """Make the timers, and remove those of the schedule before that are not replaced. On failure all are as before."""
    written = starter.install(schedule, schedule.environment)
    if before and (before.by, before.project) != (schedule.by, schedule.project):
        try:
            timers.timers(before.by).remove(before.project)
        except ChapError:
            starter.remove(schedule.project)
            raise
    return written
