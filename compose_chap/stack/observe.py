"""Find the stack that the operator means, and read its files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap import compose_labels
from compose_chap.detection import detect
from compose_chap.engine.engine import Engine
from compose_chap.errors import ChapError, Interrupted, SeveralStacks, StackError, StateError
from compose_chap.model import Origin, Project, Role, Stack
from compose_chap.project import project_file
from compose_chap.records.files.durable import check_readable
from compose_chap.records.run_records import journal_file, open_origin, refuse_open_run
from compose_chap.stack.location import Where, layout_of, read_project

if TYPE_CHECKING:
    from compose_chap.project.compose_files import Model


def find_stack(engine: Engine, where: Where) -> Stack:
    """Return the selected stack: by name, by its files or folder, by the current folder, or as the only stack.

    When its files are not on this machine, the files that the operator names are a copy of them. Raise StackError
    when there is no stack, or the selection is ambiguous.
    """
    if where.name:  # COMPOSE_FILE in the shell may name another project
        exported = {name: value for name, value in where.environment.items() if name != "COMPOSE_FILE"}
        where = replace(where, environment=exported)
    for path in where.files:
        if project_file.is_remote(path):
            project_file.read_project_file(path)
    stacks = find_stacks(engine)
    _refuse_another(engine, stacks, where)
    if not (engine.remote or len(stacks) == 1 or _in_this_folder(stacks, where) or stacks and where.explicit):
        _refuse_stopped(where)
    stack = _select(stacks, where)
    if not stack.of(Role.API):
        _refuse_without_api(engine, stack, where)
    absent = stack.project.absent
    if absent and not (where.files or where.directory):
        return stack
    if absent:
        layout = layout_of(where)
        project = Project(stack.project.name, layout.project_directory, layout.files, layout.env_files)
    else:
        project = Project(
            stack.project.name,
            where.folder / where.directory if where.directory and where.files else stack.project.directory,
            where.chosen or stack.project.files,
            where.absolute(where.env_files) or stack.project.env_files,
        )
    if missing := _missing(project):
        check_readable(missing[0])
        raise _no_file(missing[0])
    if not os.path.isdir(project.directory):
        raise StackError(
            f"There is no folder {project.directory} on this machine: records and backups would have no place.",
            state="Nothing was changed.",
            hint="Name the folder of the files with --project-directory.",
        )
    return replace(stack, project=project)


def find_stacks(engine: Engine) -> tuple[Stack, ...]:
    """Return every stack of an engine, by project name, even if the API's container is missing.

    The files of a stack on another machine all count as absent.
    """
    return tuple(_with_absent_files(stack, engine.remote) for stack in detect(engine.containers(), Role.WORKER))


def refreshed(engine: Engine, name: str) -> Stack:
    """Return the stack of a project as it is now: containers that were recreated have other ids.

    Raise StackError when they are gone.
    """
    stacks = detect(engine.containers(name))
    if not stacks:
        raise StackError(f"The CHAP containers of project '{name}' are gone.", hint=f"docker compose -p {name} ps -a")
    return stacks[0]


def _with_absent_files(stack: Stack, remote: bool) -> Stack:
    absent = stack.project.files if remote else _missing(stack.project)
    return replace(stack, project=replace(stack.project, absent=absent))


def find_local_stack(engine: Engine, where: Where) -> Stack:
    """Return the selected stack as `find_stack` does. Raise StackError also when its files are not on this machine.

    Its records are beside the files: without them, nothing can be undone. Raise StateError when this user may not
    read them. A stack other than that of the current folder must be named.
    """
    stack = find_stack(engine, where)
    for path in () if engine.remote else stack.project.files:
        check_readable(path)
    if absent := stack.project.absent:
        server = f", but on {engine.origin('').server}" if engine.remote else ""
        raise StackError(
            f"The Compose files of '{stack.project.name}' are not on this machine{server}: {absent[0]}. Its records lie"
            " beside them.",
            state="Nothing was changed.",
            hint="Run this on the server where they are. Or with a copy of them, wherever it lies:"
            f" docker chap --project-directory COPY -f COPY/{absent[0].name} …",
        )
    for folder in (*where.record_folders, stack.project.directory):
        open_origin(folder)  # raises when it cannot be read
    if not (where.explicit or engine.remote or _in_this_folder([stack], where)):
        _refuse_stopped(where, stack)
    return stack


def _no_file(path: Path) -> StackError:
    return StackError(f"There is no file {path}.", state="Nothing was changed.", hint="Name it with -f.")


def _missing(project: Project) -> tuple[Path, ...]:
    return tuple(path for path in project.files if not os.path.exists(path))


def _refuse_another(engine: Engine, stacks: Sequence[Stack], where: Where) -> None:
    """Raise Interrupted when a run in this folder was interrupted and its stack is gone: another stack is not meant."""
    if where.named:
        return
    running = {stack.project.directory.resolve() for stack in stacks if stack.of(Role.API)}
    for folder in where.record_folders:
        if folder.resolve() not in running and _has_open_run(engine, folder):
            refuse_open_run(folder)


def _has_open_run(engine: Engine, folder: Path) -> bool:
    """Whether a folder has an open run on this engine, as far as this user may read."""
    try:
        origin = open_origin(folder)
    except StateError:
        return False
    return origin is not None and _on_this_engine(engine, origin)


def _on_this_engine(engine: Engine, origin: Origin) -> bool:
    return not origin.engine or engine.origin(origin.project).owns(origin)


def _in_this_folder(stacks: Sequence[Stack], where: Where) -> list[Stack]:
    """Return the stacks of the current folder, else of the nearest of its parents, as Compose looks for its file."""
    for folder in where.folder_and_parents:
        if matching := [stack for stack in stacks if stack.project.directory.resolve() == folder]:
            return matching
    return []


def _select(stacks: Sequence[Stack], where: Where) -> Stack:
    """Return the stack that matches all options. With both -p and -f, the files need not match."""
    name, files, folder = where.name or where.environment.get("COMPOSE_PROJECT_NAME", ""), where.chosen, where.folder
    if name:
        stacks = [stack for stack in stacks if stack.project.name == name]
    if files and not where.name:
        wanted = {path.resolve() for path in files}
        matching = [stack for stack in stacks if wanted & {path.resolve() for path in stack.project.files}]
        if not matching and (missing := [path for path in files if not os.path.exists(path)]):
            raise _no_file(missing[0])
        stacks = _require_match(stacks, matching, f"from {files[0]}", ("-f", str(files[0])))
    if where.directory and not (where.name and files):
        directory = (folder / where.directory).resolve()
        matching = [stack for stack in stacks if stack.project.directory.resolve() == directory]
        stacks = _require_match(stacks, matching, f"in {directory}", ("--project-directory", str(directory)))
    if len(stacks) > 1:
        stacks = _in_this_folder(stacks, where) or stacks
    return choose(stacks, name)


def _require_match(
    stacks: Sequence[Stack], matching: Sequence[Stack], description: str, option: tuple[str, str]
) -> Sequence[Stack]:
    """Return the matching stacks, else those whose files are not on this machine: the option may name a copy."""
    candidates = matching or [stack for stack in stacks if stack.project.absent]
    if stacks and not candidates:
        projects = [stack.project for stack in stacks]
        start = shlex.join(["docker", "compose", *option, "up", "-d"])
        listing = "; ".join(
            f"{project.name} in {project.directory}, from {', '.join(map(str, project.files))}" for project in projects
        )
        raise StackError(
            f"No CHAP stack was started {description}. There is: {listing}.",
            state="Nothing was changed.",
            hint=f"Leave {option[0]} out, or start that stack first: {start}",
        )
    return candidates


def choose(stacks: Sequence[Stack], name: str = "") -> Stack:
    """Return the stack called `name`, or the only stack. Raise StackError with a list of all stacks."""
    if name:
        stacks = [stack for stack in stacks if stack.project.name == name]

    if len(stacks) == 1:
        return stacks[0]
    if not stacks:
        looked = f"a project called '{name}' with" if name else "a Compose project with"
        raise StackError(
            f"No CHAP stack found. Looked for {looked} a container, running or stopped, of the image chap-core"
            " or with CHAP_DATABASE_URL in its settings.",
            hint="Is CHAP started? See: docker compose ls -a. On another server? Use: docker --context NAME chap …",
        )
    names = ", ".join(stack.project.name for stack in stacks)
    raise SeveralStacks(
        f"There are several CHAP stacks on this engine: {names}.",
        hint=f"Go to the folder of one, or name it: docker chap -p {stacks[0].project.name} …",
    )


def _refuse_stopped(where: Where, other: Stack | None = None) -> None:
    """Raise StackError when a CHAP stack in this folder has no containers, as after `docker compose down`."""
    from compose_chap.project.pin import chap_services

    layout = None
    with suppress(ChapError):
        model = read_project(where)
        layout = model.layout if chap_services(model) else None
    started = {path.resolve() for path in other.project.files} if other else set()
    if layout is None or where.name or started & {path.resolve() for path in layout.files}:
        return
    options = "".join(f" -f {path}" for path in where.chosen)
    another = f"\nIs another one meant? Name it: docker chap -p {other.project.name} …" if other else ""
    raise StackError(
        f"The CHAP stack of {layout.files[0]} has no containers of CHAP.",
        state="Nothing was changed.",
        hint=f"Start it first: cd {layout.project_directory} && docker compose{options} up -d{another}",
    )


def _refuse_without_api(engine: Engine, stack: Stack, where: Where) -> None:
    """Raise StackError with how to recreate the API's container, or Interrupted if an open run left it missing."""
    from compose_chap.project.pin import chap_services

    project, service = stack.project, "SERVICE"
    if not project.absent and _has_open_run(engine, project.directory):
        refuse_open_run(project.directory)
    with suppress(ChapError):
        service = chap_services(read_model(where, stack))[0]
    names = ", ".join(service.name for service in stack.services)

    raise StackError(
        f"The API's container of '{project.name}' is gone. Still running: {names}.",
        state="Nothing was changed.",
        hint=f"Create it again: {project.by_hand('up', '-d', '--no-deps', service)}",
    )


def read_model(where: Where, stack: Stack) -> Model:
    """Return the project of a stack from its files; when those are not on this machine, from its containers."""
    project, folder = stack.project, stack.project.directory
    if project.absent:
        return _running(stack)
    return read_project(Where(project.files, project.name, folder, project.env_files, folder, where.environment))


def _running(stack: Stack) -> Model:
    from compose_chap.project import compose_files, variables

    services = {
        service.name: compose_files.ServiceDefinition(
            service.name, variables.Text((variables.Piece(service.containers[0].image),)), None
        )
        for service in stack.services
    }
    return compose_files.Model(services, {}, compose_files.Layout((), stack.project.directory), {}, {}, {})


def find_directory(engine: Engine, where: Where) -> Path:
    """Return the folder of the selected stack, even if an interrupted run left it without some containers.

    A run that was interrupted in this folder is found without an engine. Raise StackError when there is none.
    """
    for folder in () if where.name else where.record_folders:
        has_journal, origin = os.path.exists(journal_file(folder)), open_origin(folder)
        # A run that had ended, but whose journal was not removed yet, also counts.
        if _on_this_engine(engine, origin) if origin else has_journal:
            return folder
    try:
        return find_local_stack(engine, where).project.directory
    except (StackError, Interrupted):
        containers = engine.containers(where.name)
        folders = {Path(container.labels.get(compose_labels.DIRECTORY, "/")) for container in containers}
        cut_off = [] if engine.remote else [folder for folder in folders if _has_open_run(engine, folder)]
        # Do not touch another stack's run: it must be the only stack, or the named one.
        if len(cut_off) == 1 and (where.name or not detect(containers)):
            return cut_off[0]
        raise
