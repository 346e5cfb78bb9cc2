"""A Compose project: which files Compose reads, and the project they define together.

Nothing here touches a disk, the process environment or a clock: the caller passes a `read`
function and an environment. The files are read in Compose's order: `-f` files in order, their
documents, `extends`, `include`, overrides, variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from compose_chap.errors import ComposeFileError
from compose_chap.project.document import Data, Document, Tree, absolute, documents, items, tree
from compose_chap.project.variables import Piece, Text, decode, defined, from_process

Read = Callable[[Path], bytes]

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)

# Far above any real project: it stops includes that multiply each other.
_MOST_READS = 5_000

_IMPORTED = ("services", "volumes", "networks", "secrets", "configs", "models")
_REPLACED_KEYS = {"command", "entrypoint", "test"}


@dataclass(frozen=True)
class Layout:
    """What Compose would use: the files in order, their directory, env files (later ones win) and profiles."""

    files: tuple[Path, ...]
    project_directory: Path
    env_files: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServiceDefinition:
    """A service as all files together define it; `location` is the file and line of its image."""

    name: str
    image: Text | None
    location: tuple[Path, int] | None
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    build: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    container_name: str = ""


@dataclass(frozen=True)
class Model:
    """A project as its files define it.

    `contents` has the bytes of every file read, in order: Compose files with what they include and
    extend, env files, and the env files of services. `variables` are visible to all files.
    """

    services: Mapping[str, ServiceDefinition]
    contents: Mapping[Path, bytes] = field(repr=False)
    layout: Layout
    environ: Mapping[str, str] = field(repr=False)
    data: Tree = field(repr=False)
    variables: Mapping[str, Text] = field(repr=False)


def discover(
    directory: Path,
    environ: Mapping[str, str],
    exists: Callable[[Path], bool],
    read: Read,
    *,
    files: Sequence[Path] = (),
    project_directory: Path | None = None,
    env_files: Sequence[Path] = (),
) -> Layout:
    """Return what Compose would use when started in `directory` with these options.

    Raise ComposeFileError when there is no Compose file, or an env file cannot be read.
    """
    cache = _FileCache(read)
    named = _all_absolute(directory, env_files or filter(None, environ.get("COMPOSE_ENV_FILES", "").split(",")))
    disabled = environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "t", "true")

    def env_files_beside(folder: Path) -> tuple[Path, ...]:
        # A folder of that name is ignored.
        if named or disabled or not exists(folder / ".env") or cache.optional(folder / ".env") is None:
            return named
        return (folder / ".env",)

    chosen = _all_absolute(directory, files)
    base = absolute(directory, project_directory) if project_directory else chosen[0].parent if chosen else directory
    env = env_files_beside(base)
    variables = _variables(cache, env, environ)
    if not chosen and "COMPOSE_FILE" in variables:
        separator = variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        chosen = _all_absolute(directory, variables["COMPOSE_FILE"].split(separator))
    if not chosen:
        chosen = _default_files(base, exists)
    if not project_directory:
        base = chosen[0].parent
    # Compose looks for `.env` twice, where it was started and beside the files it found; the first one wins.
    env = tuple(path for path in env_files_beside(base) if path not in env) + env
    profiles = _variables(cache, env, environ).get("COMPOSE_PROFILES", Text()).split(",")

    return Layout(chosen, base, env, tuple(name.strip() for name in profiles if name.strip()))


def load(
    files: Sequence[Path],
    project_directory: Path | None,
    env_files: Sequence[Path],
    environ: Mapping[str, str],
    read: Read,
) -> Model:
    """Return the project that Compose makes of `files`, with all profiles active. Paths are absolute.

    Raise ComposeFileError where a file cannot be read, or Compose would refuse it.
    """
    if not files:
        raise ComposeFileError("there is no Compose file", hint="Name it with -f FILE.")
    layout = Layout(tuple(files), project_directory or files[0].parent, tuple(env_files))
    cache = _FileCache(read)
    variables = _variables(cache, layout.env_files, environ)
    try:
        variables.setdefault("COMPOSE_PROJECT_NAME", Text((Piece(_name(cache, layout, variables)),)))
        data = _load_files(cache, layout.files, _Context(layout.project_directory, variables))
        services = {name: tree(service) for name, service in tree(data.get("services")).items()}
        for service in services.values():
            service["environment"] = _service_environment(cache, service, variables)
    except RecursionError:
        raise ComposeFileError("the files refer to themselves, or are nested too deeply", path=str(files[0])) from None
    definitions = {name: _definition(name, service, cache.contents) for name, service in services.items()}

    return Model(definitions, cache.contents, layout, environ, {**data, "services": {**services}}, variables)


@dataclass(frozen=True)
class _Context:
    """How to read a file: the directory for its relative paths, its variables, the files that include it."""

    directory: Path
    variables: Mapping[str, Text]
    chain: tuple[Path, ...] = ()


class _FileCache:
    """The bytes of all files read so far, in order."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._reads = 0
        self.contents: dict[Path, bytes] = {}

    def optional(self, path: Path) -> bytes | None:
        """Return the bytes of a file, or None when there is none. Raise ComposeFileError."""
        self._reads += 1
        if self._reads > _MOST_READS:
            raise ComposeFileError("files include each other without end", path=str(path))
        if path not in self.contents:
            try:
                self.contents[path] = self._read(path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            except (OSError, ValueError) as error:
                raise ComposeFileError(f"this file cannot be read: {error}", path=str(path)) from None

        return self.contents[path]

    def required(self, path: Path) -> bytes:
        """Return the bytes of a file. Raise ComposeFileError."""
        content = self.optional(path)
        if content is None:
            what = "this is a folder, not a file" if path.is_dir() else "this file does not exist"
            raise ComposeFileError(what, path=str(path))

        return content


def _default_files(directory: Path, exists: Callable[[Path], bool]) -> tuple[Path, ...]:
    for folder in (directory, *directory.parents):
        present = [folder / name for name in FILE_NAMES if exists(folder / name)]
        if present:
            return (present[0], *[folder / name for name in OVERRIDE_NAMES if exists(folder / name)][:1])
    raise ComposeFileError(
        f"there is no Compose file in {directory} or above it", hint="Name it with -f FILE, or go to its directory."
    )


def _variables(cache: _FileCache, env_files: Iterable[Path], environ: Mapping[str, str]) -> dict[str, Text]:
    """Return all variables of a project: those of the process win, then those of the last env file."""
    process = from_process(environ)

    return {**_defined(cache, env_files, process), **process}


def _defined(cache: _FileCache, env_files: Iterable[Path], known: Mapping[str, Text]) -> dict[str, Text]:
    """Return what env files define themselves; later files win."""
    result: dict[str, Text] = {}
    for path in env_files:
        result |= defined(path, cache.required(path), known, result)

    return result


def _name(cache: _FileCache, layout: Layout, variables: Mapping[str, Text]) -> str:
    """Return the name that Compose gives a project: the last `name:` in its files, or its directory's."""
    context = _Context(layout.project_directory, variables)
    names = [document.data.get("name") for path in layout.files for document in _documents(cache, path, context)]
    name = next((str(name) for name in reversed(names) if name), layout.project_directory.name)

    return re.sub(r"[^-_a-z0-9]", "", name.lower()).lstrip("-_")


def _load_files(cache: _FileCache, paths: Iterable[Path], context: _Context) -> Tree:
    """Return the merged content of `paths`; later documents and files win."""
    merged: Tree = {}
    for path in paths:
        for document in _documents(cache, path, context):
            services: Tree = {
                name: _extended(cache, document, name, context, frozenset()) for name in document.services
            }
            data = {**document.data, "services": services}
            for included in _includes(cache, document, context):
                data = _imported(document, data, included)
            merged = tree(_merged(_cleared(merged, document.resets), data))

    return merged


def _extended(
    cache: _FileCache, document: Document, name: str, context: _Context, seen: frozenset[tuple[Path, str]]
) -> Data:
    """Return a service merged over the service that it extends. `seen` guards against cycles."""
    service = document.services.get(name)
    if not isinstance(service, dict) or service.get("extends") is None:
        return service
    if (document.path, name) in seen:
        raise document.refusal(f"service {name} extends itself", service["extends"])
    extends = service["extends"]
    reference, file = (extends.get("service"), extends.get("file")) if isinstance(extends, dict) else (extends, None)
    base_document, base_context = document, context
    if file is not None:
        base_context = replace(context, directory=document.local_path(context.directory, file).parent)
        base_document = _joined_documents(cache, document.local_path(context.directory, file), base_context)
    if not isinstance(reference, str) or reference not in base_document.services:
        raise document.refusal(f"service {name} extends {reference!r}, which is not in {base_document.path}", reference)
    base = _extended(cache, base_document, reference, base_context, seen | {(document.path, name)})
    cleared = tree(_cleared({"services": {name: base}}, document.resets).get("services")).get(name)

    return _merged(cleared, {key: value for key, value in service.items() if key != "extends"})


def _joined_documents(cache: _FileCache, path: Path, context: _Context) -> Document:
    """Return all documents of one file merged into one, with the resets of the last."""
    result = Document(path, {}, frozenset(), Text())
    for document in _documents(cache, path, context):
        result = replace(document, data=tree(_merged(_cleared(result.data, document.resets), document.data)))

    return result


def _includes(cache: _FileCache, document: Document, context: _Context) -> Iterator[Tree]:
    """Return the projects that a document includes, in order."""
    entries = document.data.get("include") or []
    if not isinstance(entries, list):
        raise document.refusal("`include` is not a list", entries)
    chain = (*context.chain, document.path)
    for entry in entries:
        form = entry if isinstance(entry, dict) else {"path": entry}
        paths = [document.local_path(context.directory, path) for path in items(form.get("path"))]
        if not paths:
            raise document.refusal("an `include` without a path")
        if not set(chain).isdisjoint(paths):
            raise document.refusal(f"{paths[0]} includes itself", items(form.get("path"))[0])
        directory = paths[0].parent
        if form.get("project_directory"):
            directory = document.local_path(context.directory, form["project_directory"])
        env_files = [document.local_path(context.directory, path) for path in items(form.get("env_file"))]
        if not env_files and cache.optional(directory / ".env") is not None:
            env_files = [directory / ".env"]
        variables = {**_defined(cache, env_files, context.variables), **context.variables}
        yield _load_files(cache, paths, _Context(directory, variables, chain))


def _imported(document: Document, data: Tree, included: Tree) -> Tree:
    """Return `data` with the resources of an included project, which may not differ from its own."""
    result = dict(data)
    for section in _IMPORTED:
        own, others = tree(result.get(section)), tree(included.get(section))
        for name in own.keys() & others.keys():
            if own[name] != others[name]:
                raise document.refusal(
                    f"{section}.{name} conflicts with what this file includes", tree(own[name]).get("image")
                )
        if others:
            result[section] = {**others, **own}

    return result


def _documents(cache: _FileCache, path: Path, context: _Context) -> list[Document]:
    return documents(path, cache.required(path), context.directory, context.variables)


def _service_environment(cache: _FileCache, service: Tree, variables: Mapping[str, Text]) -> Data:
    """Return the environment of a service merged over that of its env files, as far as those exist."""
    below: dict[str, Text] = {}
    for form in items(service.get("env_file")):
        path = tree(form).get("path")
        content = cache.optional(Path(path)) if isinstance(path, str) else None
        if content is not None and not tree(form).get("format"):
            below |= defined(Path(str(path)), content, variables, below)

    return {**below, **tree(service.get("environment"))}


def _merged(base: Data, over: Data) -> Data:
    """Return `over` merged over `base`, as Compose merges files and extended services."""
    if over is None:
        return base
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {
            key: value if key in _REPLACED_KEYS or key not in base else _merged(base[key], value)
            for key, value in over.items()
        }
    if isinstance(base, list) and isinstance(over, list):
        return base + over

    return over


def _cleared(data: Data, resets: Iterable[tuple[str, ...]]) -> Tree:
    """Return `data` without the values at the paths in `resets`."""
    result = dict(tree(data))
    for key, *rest in filter(None, resets):
        if not rest:
            result.pop(key, None)
        elif isinstance(result.get(key), dict):
            result[key] = _cleared(result[key], [tuple(rest)])

    return result


def _definition(name: str, service: Tree, contents: Mapping[Path, bytes]) -> ServiceDefinition:
    image = service.get("image")
    if not isinstance(image, Text):
        image = None

    return ServiceDefinition(
        name=name,
        image=image,
        location=locate(image.origin, contents) if image and image.origin else None,
        command=_words(service.get("command")),
        entrypoint=_words(service.get("entrypoint")),
        environment=_strings(service.get("environment")),
        build=_strings(service.get("build")),
        profiles=_words(service.get("profiles")),
        container_name=_strings(service).get("container_name", ""),
    )


def locate(piece: Piece, contents: Mapping[Path, bytes]) -> tuple[Path, int] | None:
    """Return the file and the line (from 1) of `piece`, or None when it is in no file."""
    if piece.path is None or piece.path not in contents:
        return None

    return piece.path, decode(contents[piece.path]).count("\n", 0, piece.offset) + 1


def _words(data: Data) -> tuple[str, ...]:
    if isinstance(data, list):
        return tuple(str(item) for item in data if isinstance(item, Text))

    return tuple(data.split()) if isinstance(data, Text) else ()


def _strings(data: Data) -> dict[str, str]:
    return {key: str(value) for key, value in tree(data).items() if isinstance(value, Text)}


def _all_absolute(directory: Path, names: Iterable[Path | str]) -> tuple[Path, ...]:
    return tuple(absolute(directory, name) for name in names)
