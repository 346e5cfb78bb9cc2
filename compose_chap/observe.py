"""Find the stack that an operator means, and read the files it is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap.durable import check_readable
from compose_chap.engine import Engine
from compose_chap.errors import ChapError, Interrupted, StackError, StateError
from compose_chap.stack import Project, Stack, detect
from compose_chap.state import open_origin, refuse_open_run

if TYPE_CHECKING:
    from compose_chap.project import Layout, Model


@dataclass(frozen=True)
class Where:
    """What the operator said of the place: Compose's own options, the folder and the environment."""

    files: tuple[Path, ...]
    name: str
    directory: Path | None
    env_files: tuple[Path, ...]
    folder: Path
    environment: Mapping[str, str]


def find_stack(engine: Engine, where: Where) -> Stack:
    """Return the stack that is meant: by name, by its files or folder, by where one stands, or as the only one.

    Where its files are not on this machine, those that the operator names are a copy of them. Raise StackError
    when there is no stack or when it is not clear which.
    """
    if where.name:  # the files that a shell exports may be another project's
        exported = {name: value for name, value in where.environment.items() if name != "COMPOSE_FILE"}
        where = replace(where, environment=exported)
    stacks = find_stacks(engine)
    _refuse_another(engine, stacks, where)
    if not stacks and not engine.elsewhere:
        _refuse_stopped(where)
    stack = _meant(stacks, where)
    absent = stack.project.absent
    if absent and not (where.files or where.directory):
        return stack
    if absent:
        layout = _layout(where)
        told = Project(stack.project.name, layout.project_directory, layout.files, layout.env_files)
    else:
        told = Project(
            stack.project.name,
            where.folder / where.directory if where.directory and where.files else stack.project.directory,
            _files(where) or stack.project.files,
            _absolute(where.folder, where.env_files) or stack.project.env_files,
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
    """Return every stack of an engine, by project name. No file of this machine is one of another machine's stack."""
    return tuple(_located(one, engine.elsewhere) for one in detect(engine.containers()))


def _located(stack: Stack, elsewhere: bool) -> Stack:
    absent = stack.project.files if elsewhere else _missing(stack.project)
    return replace(stack, project=replace(stack.project, absent=absent))


def find_whole_stack(engine: Engine, where: Where) -> Stack:
    """Return the stack that is meant, with its files. Raise StackError too when these are not on this machine.

    Its records lie beside the files: without them nobody can say what was done, or undo it. Raise StateError when
    this user may not read them. Another stack than that of this folder has to be named.
    """
    stack = find_stack(engine, where)
    for path in () if engine.elsewhere else stack.project.files:
        check_readable(path)
    if absent := stack.project.absent:
        server = f", but on {engine.origin('').server}" if engine.elsewhere else ""
        raise StackError(
            f"The Compose files of '{stack.project.name}' are not on this machine{server}: {absent[0]}. Its records lie"
            " beside them.",
            state="Nothing was changed.",
            hint="Run this on the server where they are. Or with a copy of them, wherever it lies:"
            f" docker chap --project-directory COPY -f COPY/{absent[0].name} …",
        )
    for place in (*_places(where), stack.project.directory):
        open_origin(place)  # which must be possible
    named = _named(where) or _files(where) or where.environment.get("COMPOSE_PROJECT_NAME")
    if not (named or engine.elsewhere or stack.project.directory.resolve() in _here(where)):
        _refuse_stopped(where, stack)
    return stack


def _missing(found: Project) -> tuple[Path, ...]:
    return tuple(path for path in found.files if not os.path.exists(path))


def _refuse_another(engine: Engine, stacks: Sequence[Stack], where: Where) -> None:
    """Refuse to take another stack for the one of this folder, when a run that was cut off left that in parts."""
    if _named(where):
        return
    there = {one.project.directory.resolve() for one in stacks}
    for place in _places(where):
        if place.resolve() not in there and _cut_off(engine, place):
            refuse_open_run(place)


def _cut_off(engine: Engine, place: Path) -> bool:
    """Whether a run is open in a folder, as far as this user may look, and it is not one of another engine."""
    try:
        whose = open_origin(place)
    except StateError:
        return False
    return whose is not None and (not whose.engine or engine.origin(whose.project).owns(whose))


def _places(where: Where) -> tuple[Path, ...]:
    """Return the folders where the records may lie: those that are named, else this one and those above it."""
    named = (where.directory,) if where.directory else tuple(path.parent for path in _files(where))
    return _absolute(where.folder, named) or (where.folder, *where.folder.parents)


def _here(where: Where) -> tuple[Path, ...]:
    return (where.folder.resolve(), *where.folder.resolve().parents)


def _named(where: Where) -> bool:
    return bool(where.name or where.files or where.directory)


def _meant(stacks: Sequence[Stack], where: Where) -> Stack:
    """Return the one stack that fits all that was said. With -p and -f both, any files may be named for it."""
    name, files, folder = where.name or where.environment.get("COMPOSE_PROJECT_NAME", ""), _files(where), where.folder
    if name:
        stacks = [one for one in stacks if one.project.name == name]
    if files and not where.name:
        wanted = {path.resolve() for path in files}
        fitting = [one for one in stacks if wanted & {path.resolve() for path in one.project.files}]
        stacks = _fitting(stacks, fitting, f"from {files[0]}", "-f")
    if where.directory and not (where.name and files):
        directory = (folder / where.directory).resolve()
        fitting = [one for one in stacks if one.project.directory.resolve() == directory]
        stacks = _fitting(stacks, fitting, f"in {directory}", "--project-directory")
    if len(stacks) > 1:
        stacks = [one for one in stacks if one.project.directory.resolve() in _here(where)] or stacks
    return choose(stacks, name)


def _fitting(stacks: Sequence[Stack], fitting: Sequence[Stack], said: str, option: str) -> Sequence[Stack]:
    """Return the stacks that fit; where none does, those whose files are elsewhere: a copy of them may be meant."""
    found = fitting or [one for one in stacks if one.project.absent]
    if stacks and not found:
        projects = [one.project for one in stacks]
        there = "; ".join(f"{one.name} in {one.directory}, from {', '.join(map(str, one.files))}" for one in projects)
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
    from compose_chap.pin import chap_services

    layout = None
    with suppress(ChapError):
        model = read_project(where)
        layout = model.layout if chap_services(model) else None
    started = {path.resolve() for path in other.project.files} if other else set()
    if layout is None or where.name or started & {path.resolve() for path in layout.files}:
        return
    options = "".join(f" -f {path}" for path in _files(where))
    another = f"\nIs another one meant? Name it: docker chap -p {other.project.name} …" if other else ""
    raise StackError(
        f"The CHAP stack of {layout.files[0]} has no containers.",
        state="Nothing was changed.",
        hint=f"Start it first: cd {layout.project_directory} && docker compose{options} up -d{another}",
    )


def read_model(where: Where, stack: Stack) -> Model:
    """Return the project of a stack as its files define it now; where they are elsewhere, as its containers show it."""
    found, place = stack.project, stack.project.directory
    if found.absent:
        return _running(stack)
    return read_project(Where(found.files, found.name, place, found.env_files, place, where.environment))


def _running(stack: Stack) -> Model:
    from compose_chap import project, variables

    services = {
        service.name: project.ServiceDefinition(
            service.name, variables.Text((variables.Piece(service.containers[0].image),)), None
        )
        for service in stack.services
    }
    return project.Model(services, {}, project.Layout((), stack.project.directory), {}, {}, {})


def _files(where: Where) -> tuple[Path, ...]:
    named = where.environment.get("COMPOSE_FILE", "")
    separator = where.environment.get("COMPOSE_PATH_SEPARATOR", ":")
    return _absolute(where.folder, where.files or [Path(part) for part in named.split(separator) if part])


def _absolute(folder: Path, paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(folder / path for path in paths)


def find_directory(engine: Engine, where: Where) -> Path:
    """Return the folder of the stack that is meant, also when a cut-off run left it without some containers.

    A run that was cut off in this folder is found without an engine. Raise StackError when there is none.
    """
    for place in () if where.name else _places(where):
        if open_origin(place) and _cut_off(engine, place):
            return place
    try:
        return find_whole_stack(engine, where).project.directory
    except (StackError, Interrupted):
        label, containers = "com.docker.compose.project.working_dir", engine.containers(where.name)
        folders = {Path(one.labels.get(label, "/")) for one in containers}
        cut_off = [] if engine.elsewhere else [place for place in folders if _cut_off(engine, place)]
        # Another stack's run is nobody's business here: it must be the only stack, or the one that was named.
        if len(cut_off) == 1 and (where.name or not detect(containers)):
            return cut_off[0]
        raise


def read_project(where: Where) -> Model:
    """Return the project that Compose would take in this folder with these options. No engine is asked."""
    from compose_chap import project  # not above: it brings YAML, and finding a stack needs none

    layout = _layout(where)
    return project.load(
        layout.files, layout.project_directory, layout.env_files, _environment(where), Path.read_bytes
    )


def _layout(where: Where) -> Layout:
    from compose_chap import project

    return project.discover(
        where.folder,
        _environment(where),
        os.path.exists,
        Path.read_bytes,
        files=where.files,
        project_directory=where.directory,
        env_files=where.env_files,
    )


def _environment(where: Where) -> dict[str, str]:
    return {**where.environment, **({"COMPOSE_PROJECT_NAME": where.name} if where.name else {})}
