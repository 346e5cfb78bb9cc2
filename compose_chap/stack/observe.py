"""Find the stack that an operator means, and read the files it is made of."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap.detection import detect
from compose_chap.engine.engine import Engine, compose_command
from compose_chap.errors import ChapError, Interrupted, StackError, StateError
from compose_chap.model import Origin, Project, Role, Stack
from compose_chap.project import project_file
from compose_chap.records.durable import check_readable
from compose_chap.records.run_records import journal_file, open_origin, refuse_open_run
from compose_chap.stack.location import Where, layout_of, read_project

if TYPE_CHECKING:
    from compose_chap.project.compose_files import Model


def find_stack(engine: Engine, where: Where) -> Stack:
    """Return the stack that is meant: by name, by its files or folder, by where one stands, or as the only one.

    Where its files are not on this machine, those that the operator names are a copy of them. Raise StackError
    when there is no stack or when it is not clear which.
    """
    if where.name:  # the files that a shell exports may be another project's
        exported = {name: value for name, value in where.environment.items() if name != "COMPOSE_FILE"}
        where = replace(where, environment=exported)
    for path in where.files:
        if project_file.is_remote(path):
            project_file.read_project_file(path)
    stacks = find_stacks(engine)
    _refuse_another(engine, stacks, where)
    if not (engine.remote or len(stacks) == 1 or _at_home(stacks, where) or stacks and where.told):
        _refuse_stopped(where)
    stack = _meant(stacks, where)
    if not stack.of(Role.API):
        _refuse_without_api(engine, stack, where)
    absent = stack.project.absent
    if absent and not (where.files or where.directory):
        return stack
    if absent:
        layout = layout_of(where)
        told = Project(stack.project.name, layout.project_directory, layout.files, layout.env_files)
    else:
        told = Project(
            stack.project.name,
            where.folder / where.directory if where.directory and where.files else stack.project.directory,
            where.chosen or stack.project.files,
            where.absolute(where.env_files) or stack.project.env_files,
        )
    if missing := _missing(told):
        check_readable(missing[0])
        raise StackError(f"There is no file {missing[0]}.", state="Nothing was changed.", hint="Name it with -f.")
    if not os.path.isdir(told.directory):
        raise StackError(
            f"There is no folder {told.directory} on this machine: records and backups would have no place.",
            state="Nothing was changed.",
            hint="Name the folder of the files with --project-directory.",
        )
    return replace(stack, project=told)


def find_stacks(engine: Engine) -> tuple[Stack, ...]:
    """Return every stack of an engine, by project name, also one that has lost its API's container.

    No file of this machine is one of another machine's stack.
    """
    return tuple(_located(stack, engine.remote) for stack in detect(engine.containers(), Role.WORKER))


def refreshed(engine: Engine, name: str) -> Stack:
    """Return the stack of a project as it is now: containers that were recreated have other ids.

    Raise StackError when they are gone.
    """
    stacks = detect(engine.containers(name))
    if not stacks:
        raise StackError(f"The CHAP containers of project '{name}' are gone.", hint=f"docker compose -p {name} ps -a")
    return stacks[0]


def _located(stack: Stack, elsewhere: bool) -> Stack:
    absent = stack.project.files if elsewhere else _missing(stack.project)
    return replace(stack, project=replace(stack.project, absent=absent))


def find_whole_stack(engine: Engine, where: Where) -> Stack:
    """Return the stack that is meant, with its files. Raise StackError too when these are not on this machine.

    Its records lie beside the files: without them nobody can say what was done, or undo it. Raise StateError when
    this user may not read them. Another stack than that of this folder has to be named.
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
    for place in (*where.places, stack.project.directory):
        open_origin(place)  # which must be possible
    if not (where.told or engine.remote or _at_home([stack], where)):
        _refuse_stopped(where, stack)
    return stack


def _missing(found: Project) -> tuple[Path, ...]:
    return tuple(path for path in found.files if not os.path.exists(path))


def _refuse_another(engine: Engine, stacks: Sequence[Stack], where: Where) -> None:
    """Refuse to take another stack for the one of this folder, when a run that was cut off left that in parts."""
    if where.named:
        return
    there = {stack.project.directory.resolve() for stack in stacks if stack.of(Role.API)}
    for place in where.places:
        if place.resolve() not in there and _cut_off(engine, place):
            refuse_open_run(place)


def _cut_off(engine: Engine, place: Path) -> bool:
    """Whether a run is open in a folder, as far as this user may look, and it is not one of another engine."""
    try:
        whose = open_origin(place)
    except StateError:
        return False
    return whose is not None and _of_this(engine, whose)


def _of_this(engine: Engine, whose: Origin) -> bool:
    return not whose.engine or engine.origin(whose.project).owns(whose)


def _at_home(stacks: Sequence[Stack], where: Where) -> list[Stack]:
    return [stack for stack in stacks if stack.project.directory.resolve() in where.here]


def _meant(stacks: Sequence[Stack], where: Where) -> Stack:
    """Return the one stack that fits all that was said. With -p and -f both, any files may be named for it."""
    name, files, folder = where.name or where.environment.get("COMPOSE_PROJECT_NAME", ""), where.chosen, where.folder
    if name:
        stacks = [stack for stack in stacks if stack.project.name == name]
    if files and not where.name:
        wanted = {path.resolve() for path in files}
        fitting = [stack for stack in stacks if wanted & {path.resolve() for path in stack.project.files}]
        stacks = _fitting(stacks, fitting, f"from {files[0]}", "-f")
    if where.directory and not (where.name and files):
        directory = (folder / where.directory).resolve()
        fitting = [stack for stack in stacks if stack.project.directory.resolve() == directory]
        stacks = _fitting(stacks, fitting, f"in {directory}", "--project-directory")
    if len(stacks) > 1:
        stacks = _at_home(stacks, where) or stacks
    return choose(stacks, name)


def _fitting(stacks: Sequence[Stack], fitting: Sequence[Stack], said: str, option: str) -> Sequence[Stack]:
    """Return the stacks that fit; where none does, those whose files are elsewhere: a copy of them may be meant."""
    found = fitting or [stack for stack in stacks if stack.project.absent]
    if stacks and not found:
        projects = [stack.project for stack in stacks]
        there = "; ".join(
            f"{project.name} in {project.directory}, from {', '.join(map(str, project.files))}" for project in projects
        )
        raise StackError(
            f"No CHAP stack was started {said}. There is: {there}.",
            state="Nothing was changed.",
            hint=f"Leave {option} away, or start that stack first with docker compose up -d.",
        )
    return found


def choose(stacks: Sequence[Stack], name: str = "") -> Stack:
    """Return the stack called `name`, or the only one. Raise StackError that lists what there is."""
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
    raise StackError(
        f"There are several CHAP stacks on this engine: {names}.",
        hint=f"Say which one: docker chap -p {stacks[0].project.name} …",
    )


def _refuse_stopped(where: Where, other: Stack | None = None) -> None:
    """Say of a stack whose files lie here that it has no containers, as after `docker compose down`."""
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
    """Say of a stack whose API's container is gone how to make that anew, or that a cut-off run left it so."""
    from compose_chap.project.pin import chap_services

    found, service = stack.project, "SERVICE"
    if not found.absent and _cut_off(engine, found.directory):
        refuse_open_run(found.directory)
    with suppress(ChapError):
        service = chap_services(read_model(where, stack))[0]
    names = ", ".join(service.name for service in stack.services)
    up = shlex.join(["docker", *compose_command(found), "up", "-d", "--no-deps", service])
    raise StackError(
        f"The API's container of '{found.name}' is gone (there: {names}).",
        state="Nothing was changed.",
        hint=f"Make it anew: {up}",
    )


def read_model(where: Where, stack: Stack) -> Model:
    """Return the project of a stack as its files define it now; where they are elsewhere, as its containers show it."""
    found, place = stack.project, stack.project.directory
    if found.absent:
        return _running(stack)
    return read_project(Where(found.files, found.name, place, found.env_files, place, where.environment))


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
    """Return the folder of the stack that is meant, also when a cut-off run left it without some containers.

    A run that was cut off in this folder is found without an engine. Raise StackError when there is none.
    """
    for place in () if where.name else where.places:
        left, whose = os.path.exists(journal_file(place)), open_origin(place)
        # One that had ended, but for taking its journal away, was a run of this folder too.
        if _of_this(engine, whose) if whose else left:
            return place
    try:
        return find_whole_stack(engine, where).project.directory
    except (StackError, Interrupted):
        label, containers = "com.docker.compose.project.working_dir", engine.containers(where.name)
        folders = {Path(container.labels.get(label, "/")) for container in containers}
        cut_off = [] if engine.remote else [place for place in folders if _cut_off(engine, place)]
        # Another stack's run is nobody's business here: it must be the only stack, or the one that was named.
        if len(cut_off) == 1 and (where.name or not detect(containers)):
            return cut_off[0]
        raise
