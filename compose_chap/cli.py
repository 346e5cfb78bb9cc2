"""The words: commands, options, confirmation. The only door of `click`."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from compose_chap import __version__
from compose_chap.errors import Cancelled, ChapError, UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass
class Call:
    """One call of a command: where the stack is, and how to speak."""

    docker: tuple[str, ...]
    command: str
    files: tuple[Path, ...]
    project_name: str
    directory: Path | None
    env_files: tuple[Path, ...]
    json: bool
    progress: str
    patience: float = 120.0

    def world(self) -> Any:
        """Return the engine, clock and progress of this call."""
        from compose_chap.engine import Engine
        from compose_chap.screen import Progress, now
        from compose_chap.world import World

        notify = Progress(sys.stderr, "quiet" if self.json and self.progress == "auto" else self.progress)
        click.get_current_context().call_on_close(notify.end)
        return World(Engine(self.docker), now, time.sleep, notify, self.patience, environment=dict(os.environ))

    def where(self) -> Any:
        """Return what was said of the place of the stack."""
        from compose_chap.observe import Where

        return Where(
            self.files, self.project_name, self.directory, self.env_files, Path.cwd(), dict(os.environ)
        )

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print a result, as JSON or as text."""
        from compose_chap import screen

        screen.write(screen.document(self.command, {"ok": True, **data}) if self.json else text)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is changed. Raise UsageError where there is nobody to ask."""
        if yes:
            return
        if self.json or not sys.stdin.isatty():
            raise UsageError(
                "This changes the stack, and there is no terminal to ask on.",
                state="Nothing was changed.",
                hint="Add --yes to go on without a question.",
            )
        if not click.confirm(question, err=True):
            raise Cancelled("You said no.", state="Nothing was changed.")


def common(function: _Function) -> _Function:
    """Give a command the options that every command has, and a `call`."""

    @click.option("-f", "--file", "files", multiple=True, type=Path, help="A Compose file, as with docker compose.")
    @click.option("-p", "--project-name", default="", help="The Compose project, where there are several.")
    @click.option("--project-directory", type=Path, help="The project's folder, as with docker compose.")
    @click.option("--env-file", "env_files", multiple=True, type=Path, help="An env file, as with docker compose.")
    @click.option("--json", is_flag=True, help="Print the result as one JSON document.")
    @click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "quiet", "json"]),
        default="auto",
        help="How to tell of progress, on standard error.",
    )
    @click.pass_context
    def wrapped(context: click.Context, /, **given: Any) -> Any:
        call = Call(
            context.obj,
            context.info_name or "",
            given.pop("files"),
            given.pop("project_name"),
            given.pop("project_directory"),
            given.pop("env_files"),
            given.pop("json"),
            given.pop("progress"),
        )
        context.meta["call"] = call
        return context.invoke(function, call, **given)

    wrapped.__name__ = function.__name__
    wrapped.__doc__ = function.__doc__
    wrapped.__click_params__ = [*getattr(function, "__click_params__", []), *wrapped.__click_params__]  # type: ignore[attr-defined]
    return wrapped  # type: ignore[return-value]


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.pass_context
def chap(context: click.Context) -> None:
    """Back up, upgrade and restore a running CHAP stack."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(words: Sequence[str], docker: tuple[str, ...] = ("docker",)) -> int:
    """Run the words of an operator and return the exit status."""
    if list(words[:1]) == ["help"]:
        words = [*words[1:], "--help"]
    try:
        chap.main(list(words), prog_name="docker chap", standalone_mode=False, obj=docker)
        return 0
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.Abort:
        return _failed(Cancelled("Cancelled.", state="Nothing was changed."), words, docker)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ChapError as error:
        return _failed(error, words, docker)


def _failed(error: ChapError, words: Sequence[str], docker: tuple[str, ...]) -> int:
    from compose_chap import screen

    command = next((word for word in words if not word.startswith("-")), "")
    if "--json" in words:
        screen.write(screen.failure_document(command, error))
    print(screen.failure(error), file=sys.stderr)
    return error.exit_status


def complete(words: Sequence[str], docker: tuple[str, ...]) -> int:
    """Print completions of the last word, as Docker's own completion wants them."""
    last = words[-1] if words else ""
    if len(words) <= 1:
        for name, command in sorted(chap.commands.items()):
            if name.startswith(last) and not command.hidden:
                print(f"{name}\t{command.get_short_help_str(80)}")
        print(":4")
        return 0
    command = chap.commands.get(words[0])
    if command and last.startswith("-"):
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith(last) and isinstance(parameter, click.Option):
                    print(f"{option}\t{parameter.help or ''}")
        print(":4")
        return 0
    print(":0")
    return 0


# Commands


@chap.command("version")
@common
def version_command(call: Call) -> None:
    """Show the version of this tool."""
    call.result({"tool_version": __version__}, f"docker chap {__version__}")


@chap.command("status")
@common
def status_command(call: Call) -> None:
    """Show what runs, how it is, and the last backup."""
    from compose_chap import observe, status

    world = call.world()
    seen = status.look(world, observe.find_stack(world.engine, call.where()))
    call.result(status.to_json(seen), status.text(seen, world.clock()))


@chap.command("backup")
@click.option("-o", "--output", type=Path, help="The folder for backups, instead of backups/ beside the Compose file.")
@common
def backup_command(call: Call, output: Path | None) -> None:
    """Make a backup, and prove it."""
    from compose_chap import backup, observe, screen, state

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    sources = _sources(where, stack)
    folder = backup.folder_for(stack, output, where.environment)
    with state.locked(stack.project.directory, "backup", world.clock()):
        state.refuse_open_run(stack.project.directory)
        made = backup.take(
            world.engine, stack, sources, folder, "by hand", clock=world.clock, notify=world.notify
        )
    rows = sum(made.tables.values())
    call.result(
        {"backup": _backup_json(made)},
        f"Backup {made.id} is complete and was read back: {rows} rows in {len(made.tables)} tables,"
        f" {screen.size(made.size)}.\n{made.folder}",
    )


@chap.command("backups")
@click.option("-o", "--output", type=Path, help="The folder to look in.")
@common
def backups_command(call: Call, output: Path | None) -> None:
    """List the backups."""
    from compose_chap import backup, observe, screen

    world, where = call.world(), call.where()
    folder = backup.folder_for(observe.find_stack(world.engine, where), output, where.environment)
    found = backup.list_backups(folder)
    rows = [
        [
            one.id,
            screen.age(one.created_at, world.clock()),
            screen.size(one.size),
            one.manifest["chap"]["version"] or "unknown",
            one.manifest["reason"],
        ]
        for one in found
    ]
    text = screen.table(rows, ["BACKUP", "AGE", "SIZE", "CHAP", "REASON"]) if rows else f"No backups in {folder}."
    call.result({"folder": str(folder), "backups": [_backup_json(one) for one in found]}, text)


@chap.command("verify")
@click.argument("backup_", metavar="BACKUP", default="latest")
@click.option("-o", "--output", type=Path, help="The folder to look in.")
@common
def verify_command(call: Call, backup_: str, output: Path | None) -> None:
    """Prove a backup once more: checksums, and the dump read whole."""
    from compose_chap import backup, observe

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    found = backup.find(backup_, backup.folder_for(stack, output, where.environment))
    backup.verify(found, backup.server_of(world.engine, stack), world.notify)
    call.result({"backup": _backup_json(found)}, f"Backup {found.id} is whole: every checksum fits, the dump was read back.")


def _credential_options(function: _Function) -> _Function:
    function = click.option(
        "--dhis2-user", default="", help="Check through DHIS2 too, as this user; DHIS2_PASSWORD or a question gives the password."
    )(function)
    return function


@chap.command("upgrade")
@click.argument("version")
@click.option("--dry-run", is_flag=True, help="Show the plan and the changes of the files, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=Path, help="The folder for backups.")
@click.option("--wait", "patience", default=120.0, show_default=True, help="Seconds CHAP may do nothing visible before it counts as stuck.")
@click.option("--drain", type=float, metavar="SECONDS", default=0.0, help="Wait up to this long for running jobs.")
@click.option("--allow-drift", is_flag=True, help="Go on although containers differ from the files.")
@click.option("--abandon-jobs", is_flag=True, help="Go on although running jobs are lost.")
@click.option("--allow-downgrade", is_flag=True, help="Go to an older version.")
@click.option("--allow-unhealthy", is_flag=True, help="Go on although CHAP is not well now.")
@_credential_options
@common
def upgrade_command(
    call: Call, version: str, dry_run: bool, yes: bool, output: Path | None, patience: float, drain: float,
    dhis2_user: str, **allow: bool,
) -> None:
    """Upgrade CHAP to VERSION: all new and verified, or all old and verified."""
    from compose_chap import observe, preflight, screen, state, upgrade
    from compose_chap.stack import release_tag

    call.patience = patience
    target = release_tag(version)
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)

    with state.locked(stack.project.directory, "upgrade", world.clock()):
        state.refuse_open_run(stack.project.directory)
        subject = _subject(call, world, where, stack, target, output)
        if drain:
            _drain(world, subject, drain)
        allowed = {name for name, flag in preflight.OVERRIDES.items() if allow.get(flag.lstrip("-").replace("-", "_"))}
        found = preflight.examine(subject)
        checks = preflight.overridden(found, allowed)
        _refuse(call, checks)
        if not subject.edits and subject.version == target.removeprefix("v"):
            call.result({"changed": False, "chap_version": subject.version}, f"CHAP {subject.version} runs already. Nothing to do.")
            return
        plan = upgrade.UpgradePlan(
            stack,
            target,
            subject.images,
            subject.edits,
            tuple(subject.model.sources),
            subject.backups,
            subject.platform,
            tuple(check.name for check in found if check.failed),
        )
        text = _plan_text(subject, checks)
        if dry_run:
            call.result({"plan": _plan_json(subject), "checks": [asdict(one) for one in checks]}, text)
            return
        if not call.json:
            print(text, file=sys.stderr)
        call.confirm(f"Upgrade CHAP from {subject.version} to {target}?", yes=yes)
        done = upgrade.execute(world, plan, _credentials(dhis2_user))

    call.result(
        {
            "changed": True,
            "run": done.run,
            "from": done.before,
            "to": done.after,
            "backup": str(done.backup.folder),
            "kept_database": done.kept,
            "checks": [asdict(one) for one in done.checks],
        },
        f"CHAP is upgraded from {done.before} to {done.after.removeprefix('v')}, and verified:\n"
        + screen.checks_text(done.checks, colour=screen.colourful(sys.stdout))
        + f"\nThe data of before are kept as database {done.kept}; to go back to them: docker chap rollback",
    )


@chap.command("check")
@click.argument("version", default="")
@click.option("-o", "--output", type=Path, help="The folder for backups.")
@common
def check_command(call: Call, version: str, output: Path | None) -> None:
    """Run the checks that come before an upgrade, and nothing else."""
    from compose_chap import observe, preflight, screen
    from compose_chap.stack import release_tag

    target = release_tag(version) if version else ""
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    checks = preflight.examine(_subject(call, world, where, stack, target, output))
    good = not any(check.failed for check in checks)
    call.result(
        {"ok": good, "checks": [asdict(one) for one in checks]},
        screen.checks_text(checks, colour=screen.colourful(sys.stdout)),
    )
    if not good:
        raise click.exceptions.Exit(1)


@chap.command("versions")
@common
def versions_command(call: Call) -> None:
    """List the versions that CHAP can move to, newest last."""
    from compose_chap import observe, preflight

    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    subject = _subject(call, world, where, stack, "", None)
    releases = preflight.available(subject.registry, subject.images)
    lines = [f"{one}  (running)" if one == f"v{subject.version}" else one for one in releases]
    call.result({"running": subject.version, "versions": releases}, "\n".join(lines) or "The registry has no release.")


@chap.command("restore")
@click.argument("source", metavar="BACKUP", required=False)
@click.option("--undo", is_flag=True, help="Undo the last restore.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=Path, help="The folder of the backups.")
@click.option("--trust", is_flag=True, help="Restore a dump that holds what no dump of CHAP has.")
@click.option("--wait", "patience", default=120.0, show_default=True, help="Seconds CHAP may do nothing visible before it counts as stuck.")
@_credential_options
@common
def restore_command(
    call: Call, source: str | None, undo: bool, yes: bool, output: Path | None, trust: bool, patience: float, dhis2_user: str
) -> None:
    """Put a backup back: an id, `latest`, a folder, or any dump file of PostgreSQL."""
    from compose_chap import backup, observe, restore, screen, state

    call.patience = patience
    if undo:
        _roll_back(call, "restore", yes, dhis2_user)
        return
    if not source:
        raise UsageError("Say what to restore: a backup's id, latest, or a file.", hint="List them: docker chap backups")
    world, where = call.world(), call.where()
    stack = observe.find_stack(world.engine, where)
    found = restore.recognise(source, backup.folder_for(stack, output, where.environment))

    with state.locked(stack.project.directory, "restore", world.clock()):
        state.refuse_open_run(stack.project.directory)
        what = f"backup {found.backup.id}" if found.backup else str(found.path)
        call.confirm(
            f"Restore {what} into {stack.access.name} of project {stack.project.name}? The present data are kept aside.",
            yes=yes,
        )
        done = restore.execute(world, restore.RestorePlan(stack, found, trust), _credentials(dhis2_user))
    call.result(
        {
            "run": done.run,
            "source": str(done.source),
            "tables": dict(done.tables),
            "kept_database": done.kept,
            "downtime_seconds": done.downtime,
            "checks": [asdict(one) for one in done.checks],
        },
        f"Restored {what}: {sum(done.tables.values())} rows in {len(done.tables)} tables. CHAP was down for"
        f" {screen.duration(done.downtime)}.\n"
        + screen.checks_text(done.checks, colour=screen.colourful(sys.stdout))
        + f"\nThe data of before are kept as database {done.kept}; to go back to them: docker chap restore --undo",
    )


@chap.command("rollback")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", "patience", default=120.0, show_default=True, help="Seconds CHAP may do nothing visible before it counts as stuck.")
@_credential_options
@common
def rollback_command(call: Call, yes: bool, patience: float, dhis2_user: str) -> None:
    """Undo the last upgrade: files, images and data."""
    call.patience = patience
    _roll_back(call, "upgrade", yes, dhis2_user)


def _roll_back(call: Call, operation: str, yes: bool, dhis2_user: str) -> None:
    from compose_chap import observe, recover, screen, state, transaction

    world = call.world()
    stack = observe.find_stack(world.engine, call.where())
    directory = stack.project.directory

    with state.locked(directory, "rollback", world.clock()):
        state.refuse_open_run(directory)
        plan = recover.plan_rollback(world, stack, operation)
        written = ", ".join(f"{table}: {rows}" for table, rows in plan.written_since.items()) or "none"
        if not call.json:
            print(f"Rows written since the {operation}, which will be kept aside: {written}", file=sys.stderr)
        call.confirm(f"Undo the {operation} of {plan.undone['id']}?", yes=yes)
        journal = state.begin_run(
            directory, "rollback", plan.change.to_facts(), world.clock, undoes=plan.undone["id"], rows_set_aside=dict(plan.written_since)
        )
        checks = transaction.run(world, plan.change, journal, _credentials(dhis2_user))
        journal.end("done", checks=[asdict(check) for check in checks])
    call.result(
        {
            "run": journal.id,
            "undone": plan.undone["id"],
            "kept_database": plan.change.kept,
            "written_since": dict(plan.written_since),
            "checks": [asdict(check) for check in checks],
        },
        f"The {operation} of {plan.undone['id']} is undone, and verified:\n"
        + screen.checks_text(checks, colour=screen.colourful(sys.stdout))
        + f"\nThe newer data are kept as database {plan.change.kept}.",
    )


@chap.command("recover")
@common
def recover_command(call: Call) -> None:
    """Finish or undo a run that was cut off."""
    from compose_chap import observe, recover, screen, state

    world, where = call.world(), call.where()
    directory = observe.find_directory(world.engine, where)
    with state.locked(directory, "recover", world.clock()):
        journal = state.open_run(directory, world.clock)
        if journal is None:
            recover.clean_up(world.engine)
            call.result({"changed": False}, "No run was cut off. Nothing to do.")
            return
        done = recover.recover(world, journal)
    call.result(
        {
            "changed": True,
            "run": done.run,
            "operation": done.operation,
            "outcome": done.outcome,
            "checks": [asdict(check) for check in done.checks],
        },
        f"The {done.operation} of {done.run}: {done.outcome}.\n"
        + screen.checks_text(done.checks, colour=screen.colourful(sys.stdout)),
    )


@chap.command("history")
@common
def history_command(call: Call) -> None:
    """Show what was done, when, by whom, with which result."""
    from compose_chap import observe, screen, state

    world, where = call.world(), call.where()
    runs = state.history(observe.find_directory(world.engine, where))
    rows = [
        [run["id"], run["operation"], f"{run.get('from', '')} {run.get('to', '')}".strip(), run["result"], run["by"]]
        for run in runs
    ]
    text = screen.table(rows, ["RUN", "WHAT", "VERSIONS", "RESULT", "BY"]) if rows else "Nothing was done yet."
    call.result({"runs": runs}, text)


# Pieces that commands share


def _sources(where: Any, stack: Any) -> tuple[Path, ...]:
    from compose_chap import observe

    return tuple(observe.read_model(where, stack.project).sources)


def _subject(call: Call, world: Any, where: Any, stack: Any, target: str, output: Path | None) -> Any:
    from compose_chap import backup, observe, preflight
    from compose_chap.registry import Registry

    return preflight.Subject(
        world,
        stack,
        observe.read_model(where, stack.project),
        target,
        Registry(world.engine.insecure_registry, world.engine.credentials),
        backup.folder_for(stack, output, where.environment),
    )


def _drain(world: Any, subject: Any, limit: float) -> None:
    begun = world.clock()
    while True:
        jobs = subject.chap.jobs()
        waited = (world.clock() - begun).total_seconds()
        if not jobs.running and not jobs.waiting or waited > limit:
            return
        world.notify("drain", f"{len(jobs.running)} running, {len(jobs.waiting)} waiting", waited, limit)
        world.sleep(2)


def _refuse(call: Call, checks: Sequence[Any]) -> None:
    from compose_chap import screen

    failed = [check for check in checks if check.failed]
    if not failed:
        return
    if not call.json:
        print(screen.checks_text(checks, colour=screen.colourful(sys.stderr)), file=sys.stderr)
    raise ChapError(
        " ".join(check.message for check in failed),
        state="Nothing was changed.",
        hint=next((check.hint for check in failed if check.hint), "See: docker chap check"),
    )


def _plan_text(subject: Any, checks: Sequence[Any]) -> str:
    from compose_chap import pin, screen

    steps = [
        "Plan",
        f"  pull       {', '.join(map(str, dict.fromkeys(subject.images.values())))}",
        f"  back up    database {subject.database.name} ({screen.size(subject.database.size)}) to {subject.backups}",
        f"  stop       {', '.join(service.name for service in subject.stack.writers)}",
        f"  keep       a copy of {subject.database.name} inside the server",
        f"  recreate   {', '.join(service.name for service in subject.stack.writers)}, and nothing else",
        "  verify     versions, schema, rows, readiness, models, route, other containers",
        "Changes of the files",
        pin.diff(subject.edits).rstrip() or "  none",
        "Checks",
        screen.checks_text(checks, colour=screen.colourful(sys.stderr)),
    ]
    return "\n".join(steps)


def _plan_json(subject: Any) -> dict[str, Any]:
    from compose_chap import pin

    return {
        "from": subject.version,
        "to": subject.target,
        "images": {name: str(reference) for name, reference in subject.images.items()},
        "diff": pin.diff(subject.edits),
        "database_bytes": subject.database.size,
        "backups": str(subject.backups),
    }


def _credentials(user: str) -> dict[str, str]:
    from compose_chap.verify import basic_credentials

    token = os.environ.get("DHIS2_TOKEN")
    if token:
        return {"Authorization": f"ApiToken {token}"}
    user = user or os.environ.get("DHIS2_USERNAME", "")
    if not user:
        return {}
    password = os.environ.get("DHIS2_PASSWORD")
    if password is None:
        if not sys.stdin.isatty():
            raise UsageError("There is no password for DHIS2.", hint="Set DHIS2_PASSWORD in the environment.")
        password = click.prompt(f"Password of {user} in DHIS2", hide_input=True, err=True)
    return basic_credentials(user, password)


def _backup_json(one: Any) -> dict[str, Any]:
    return {"folder": str(one.folder), "size": one.size, **one.manifest}
