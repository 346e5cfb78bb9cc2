"""Find the stack that an operator means, and read the files it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compose_chap.engine import Engine
from compose_chap.errors import Interrupted, RegistryError, StackError
from compose_chap.stack import Project, Reference, Role, Stack, classify, detect
from compose_chap.state import has_open_journal, refuse_open_run

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
    """Return the stack that is meant: by name, by its files, by the folder, or because it is the only one.

    Where its files are not on this machine, those that the operator names are a copy of them. Raise StackError
    when there is no stack or when it is not clear which.
    """
    stacks = detect(engine.containers())
    _refuse_another(stacks, where)
    files = tuple(_absolute(where.folder, where.files or _compose_file(where)))
    name = where.name or where.environment.get("COMPOSE_PROJECT_NAME", "")

    if not name and files:
        stacks = _with_files(stacks, files)
    elif not name and len(stacks) > 1:
        here = (where.folder, *where.folder.parents)
        stacks = tuple(one for one in stacks if one.project.directory in here) or stacks
    stack = choose(stacks, name)
    absent = _absent(stack.project)
    if absent and not (files or where.directory):
        return replace(stack, project=replace(stack.project, absent=absent))
    if absent:
        layout = _layout(where)
        told = Project(stack.project.name, layout.project_directory, layout.files, layout.env_files)
    else:
        told = Project(
            stack.project.name,
            where.directory.absolute() if where.directory else stack.project.directory,
            files or stack.project.files,
            tuple(_absolute(where.folder, where.env_files)) or stack.project.env_files,
        )
    if missing := _absent(told):
        raise StackError(f"There is no file {missing[0]}.", state="Nothing was changed.", hint="Name it with -f.")
    if not told.directory.is_dir():
        raise StackError(
            f"There is no folder {told.directory} on this machine: records and backups would have no place.",
            state="Nothing was changed.",
            hint="Name the folder of the files with --project-directory.",
        )
    return replace(stack, project=told)


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


def find_stacks(engine: Engine) -> tuple[Stack, ...]:
    """Return every stack of an engine, by project name."""
    found = detect(engine.containers())
    return tuple(replace(one, project=replace(one.project, absent=_absent(one.project))) for one in found)


def find_whole_stack(engine: Engine, where: Where) -> Stack:
    """Return the stack that is meant, with its files. Raise StackError too when these are not on this machine.

    Its records lie beside the files: without them nobody can say what was done, or undo it.
    """
    stack = find_stack(engine, where)
    if absent := stack.project.absent:
        raise StackError(
            f"The Compose files of '{stack.project.name}' are not on this machine: {absent[0]}. Its records lie beside"
            " them.",
            state="Nothing was changed.",
            hint="Run this on the server where they are. Or with a copy of them:"
            f" docker chap --project-directory COPY -f COPY/{absent[0].name} …",
        )
    return stack


def _absent(found: Project) -> tuple[Path, ...]:
    return tuple(path for path in found.files if not path.exists())


def _refuse_another(stacks: Sequence[Stack], where: Where) -> None:
    """Refuse to take another stack for the one of this folder, when a run that was cut off left that in parts."""
    if where.name or where.files:
        return
    for place in (where.folder, *where.folder.parents):
        if has_open_journal(place) and all(one.project.directory != place for one in stacks):
            refuse_open_run(place)


def read_model(where: Where, stack: Stack) -> Model:
    """Return the project of a stack as its files define it now; where they are elsewhere, as its containers show it."""
    found = stack.project
    if found.absent:
        return _running(stack)
    return read_project(
        replace(
            where,
            files=found.files,
            name=found.name,
            directory=found.directory,
            env_files=found.env_files,
            folder=found.directory,
        )
    )


def _running(stack: Stack) -> Model:
    from compose_chap import project, variables

    services = {
        service.name: project.ServiceDefinition(
            service.name, variables.Text((variables.Piece(service.containers[0].image),)), None
        )
        for service in stack.services
    }
    return project.Model(services, {}, project.Layout((), stack.project.directory), {}, {}, {})


def _compose_file(where: Where) -> tuple[Path, ...]:
    named = where.environment.get("COMPOSE_FILE", "")
    separator = where.environment.get("COMPOSE_PATH_SEPARATOR", ":")
    return tuple(Path(part) for part in named.split(separator) if part)


def _absolute(folder: Path, paths: Sequence[Path]) -> list[Path]:
    return [folder / path for path in paths]


def _with_files(stacks: Sequence[Stack], files: Sequence[Path]) -> tuple[Stack, ...]:
    wanted = {path.resolve() for path in files}
    found = tuple(one for one in stacks if wanted & {path.resolve() for path in one.project.files})
    found = found or tuple(one for one in stacks if _absent(one.project))
    if stacks and not found:
        started = "; ".join(f"{one.project.name} from {', '.join(map(str, one.project.files))}" for one in stacks)
        raise StackError(
            f"No CHAP stack was started from {files[0]}. There is: {started}.",
            hint="Leave -f away, or start that stack first with docker compose up -d.",
        )
    return found


def find_directory(engine: Engine, where: Where) -> Path:
    """Return the folder of the stack that is meant, also when a cut-off run left it without some containers.

    A run that was cut off in this folder is found without an engine. Raise StackError when there is none.
    """
    named = [where.folder / path.parent for path in where.files] + [where.folder / (where.directory or "")]
    for place in (*named, *where.folder.parents):
        if not where.name and has_open_journal(place):
            return place
    try:
        return find_whole_stack(engine, where).project.directory
    except (StackError, Interrupted):
        label, containers = "com.docker.compose.project.working_dir", engine.containers(where.name)
        cut_off = {place for one in containers if has_open_journal(place := Path(one.labels.get(label, "/")))}
        # Another stack's run is nobody's business here: it must be the only stack, or the one that was named.
        if len(cut_off) == 1 and (where.name or not detect(containers)):
            return cut_off.pop()
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
        Path.exists,
        Path.read_bytes,
        files=where.files,
        project_directory=where.directory,
        env_files=where.env_files,
    )


def _environment(where: Where) -> dict[str, str]:
    return {**where.environment, **({"COMPOSE_PROJECT_NAME": where.name} if where.name else {})}


def chap_services(model: Model) -> tuple[str, ...]:
    """Return the API and the workers of a project, the API first. Raise StackError when there is no API."""
    roles = {
        name: classify(
            str(service.image or ""),
            (*service.entrypoint, *service.command),
            service.environment,
            service.build.get("dockerfile", "Dockerfile" if service.build else ""),
        )
        for name, service in model.services.items()
    }
    chosen = [name for role in (Role.API, Role.WORKER) for name in roles if roles[name] is role]
    if Role.API not in roles.values():
        raise StackError(
            f"No service in {', '.join(map(str, model.layout.files))} runs CHAP's API.",
            hint="Name the right files with -f.",
        )
    return tuple(chosen)


def digests(model: Model, services: Sequence[str], tag: str) -> dict[str, str]:
    """Return the registry's digest of a tag of each service's image. Raise RegistryError when it has none."""
    from compose_chap.registry import Registry, is_loopback

    registry, found = Registry(is_loopback), {}
    for name in services:
        image = Reference.parse(str(model.services[name].image or ""))
        manifest = registry.manifest(image.with_tag(tag))
        if manifest is None:
            raise RegistryError(f"The registry does not have {image.with_tag(tag)}.", hint="docker chap versions")
        found[name] = manifest.digest
    return found
