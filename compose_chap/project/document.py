"""A Compose file: its YAML documents as plain data that knows where every character was written.

The only module that imports ruamel.yaml. Bytes and variables go in, data comes out; nothing is read from disk here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from compose_chap.errors import ComposeFileError
from compose_chap.project.variables import Piece, Text, filled, written
from compose_chap.redact import without_content

Data: TypeAlias = "Text | None | list[Data] | dict[str, Data]"
Tree: TypeAlias = "dict[str, Data]"

# Far above any real file: it stops aliases that multiply each other.
_MOST_NODES = 100_000

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
_SPELLINGS = {"'": re.compile(r"''|.", re.DOTALL), '"': re.compile(r"\\(?:x..|u.{4}|U.{8}|.)|.", re.DOTALL)}
_NOT_STRINGS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "timestamp")}
_REMOTE = re.compile(r"[a-z+]+://|git@|github\.com/")


@dataclass(frozen=True)
class Document:
    """A YAML document as plain data, and the paths that its `!reset` and `!override` clear in the files before it."""

    path: Path
    data: Tree
    resets: frozenset[tuple[str, ...]]
    text: Text = field(repr=False)

    @property
    def services(self) -> Tree:
        return tree(self.data.get("services"))

    def refusal(self, problem: str, data: Data = None, hint: str = "") -> ComposeFileError:
        """Return the error for this document, with the line of `data` if that is known."""
        origin = data.origin if isinstance(data, Text) else None
        line = self.text.count("\n", 0, origin.offset) + 1 if origin and origin.path == self.path else 0

        return ComposeFileError(problem, path=str(self.path), line=line, hint=hint)

    def local_path(self, directory: Path, data: Data) -> Path:
        """Return the path that `data` names, from `directory`. Raise ComposeFileError unless it is a local one."""
        if not isinstance(data, Text) or not data:
            raise self.refusal("a path is missing, or is not a word", data)
        if data.problem:
            raise self.refusal(data.problem, data)
        if _REMOTE.match(data):
            raise self.refusal(
                "this is not a file of this machine", data, "Download what comes from elsewhere, and name the copy."
            )

        return absolute(directory, data)


def documents(path: Path, content: bytes, directory: Path, variables: Mapping[str, Text]) -> list[Document]:
    """Return the documents of a Compose file, with variables filled in.

    Services are in their long forms, with paths made absolute from `directory`, so that they can
    be merged. Raise ComposeFileError where Compose could not read the file either.
    """
    try:
        text, nodes = _parsed(content)
        return [_Conversion(path, text, directory, variables).document(node) for node in nodes]
    except _Unreadable as error:
        raise ComposeFileError(
            f"Compose cannot read this file: {error.problem}",
            path=str(path),
            line=error.line,
            hint="Correct it first; `docker compose config` shows whether Compose can read it.",
        ) from None


def tree(data: Data) -> Tree:
    """Return `data` if it is a mapping, or else an empty one."""
    return data if isinstance(data, dict) else {}


def items(data: Data) -> list[Data]:
    """Return a list where Compose takes a list or a single value."""
    return data if isinstance(data, list) else [] if data is None else [data]


def absolute(directory: Path, name: Path | str) -> Path:
    """Return the absolute path of `name` in `directory`, without following links."""
    return Path(os.path.normpath(directory / name))


class _Unreadable(Exception):
    """Bytes that are not YAML; `line` counts from 1, or is 0 when unknown."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


@lru_cache(maxsize=1024)
def _parsed(content: bytes) -> tuple[str, tuple[Node, ...]]:
    """Return the text and the document nodes of a file. Raise _Unreadable.

    Cached by content, because a project is read again after an edit to verify it.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unreadable("it is not UTF-8", content.count(b"\n", 0, error.start) + 1) from None
    try:
        return text, _nodes(text)
    except _Unreadable:
        # Compose takes tabs in places where ruamel does not. Spaces instead keep every offset.
        if "\t" in text:
            return text, _nodes(text.replace("\t", " "))
        raise


def _nodes(text: str) -> tuple[Node, ...]:
    try:
        return tuple(node for node in YAML(typ="safe", pure=True).compose_all(text) if node is not None)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Unreadable(without_content(str(error.problem or error.context)), mark.line + 1 if mark else 0) from None
    except Exception as error:  # on hostile input the parser raises nearly anything, RecursionError included
        raise _Unreadable(f"it is not YAML ({type(error).__name__})") from None


class _Conversion:
    """Turns the nodes of one document into plain data, with variables filled in."""

    def __init__(self, path: Path, text: str, directory: Path, variables: Mapping[str, Text]) -> None:
        self._path = path
        self._text = written(text, path)
        self._directory = directory
        self._variables = variables
        self._resets: set[tuple[str, ...]] = set()
        self._entries: dict[int, dict[str, Node]] = {}
        self._nodes = 0

    def document(self, node: Node) -> Document:
        data = self._data(node, ())
        if not isinstance(data, dict):
            raise _Unreadable("the top of a Compose file is a mapping", node.start_mark.line + 1)
        for service in tree(data.get("services")).values():
            if isinstance(service, dict):
                self._normalise(service)

        return Document(self._path, data, frozenset(self._resets), self._text)

    def _data(self, node: Node, where: tuple[str, ...]) -> Data:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise _Unreadable("aliases that multiply each other", node.start_mark.line + 1)
        if node.tag == "!override":
            self._resets.add(where)
        if isinstance(node, MappingNode):
            entries = self._mapping(node)
            self._resets |= {(*where, key) for key, value in entries.items() if value.tag == "!reset"}
            return {key: self._data(value, (*where, key)) for key, value in entries.items() if value.tag != "!reset"}
        if isinstance(node, SequenceNode):
            return [self._data(item, (*where, "*")) for item in node.value if item.tag != "!reset"]
        if not isinstance(node, ScalarNode):
            raise _Unreadable("a node of no known kind", node.start_mark.line + 1)
        if node.tag == "tag:yaml.org,2002:null" and node.style is None:
            return None
        if where[:1] == ("services",) and where[2:] == ("image",) and node.tag in _NOT_STRINGS:
            raise _Unreadable("an image that is not a string; put it in quotes", node.start_mark.line + 1)

        return filled(_located(node, self._text), self._variables)

    def _mapping(self, node: MappingNode) -> dict[str, Node]:
        """Return the entries of a mapping; its own win over those of `<<`."""
        if id(node) not in self._entries:
            own: dict[str, Node] = {}
            for key, value in node.value:
                if not isinstance(key, ScalarNode):
                    raise _Unreadable("a key that is not a word", key.start_mark.line + 1)
                if key.value in own:
                    raise _Unreadable(f"the key {key.value!r} appears twice", key.start_mark.line + 1)
                own[key.value] = value
            merge = own.pop("<<", None)
            bases = merge.value if isinstance(merge, SequenceNode) else [merge] if merge else []
            for base in bases:
                if not isinstance(base, MappingNode):
                    raise _Unreadable("`<<` takes mappings only", base.start_mark.line + 1)
                own = {**self._mapping(base), **own}
            self._entries[id(node)] = own

        return self._entries[id(node)]

    def _normalise(self, service: Tree) -> None:
        """Expand the short forms of a service, with absolute paths, so that files can be merged."""
        if isinstance(service.get("build"), str):
            service["build"] = {"context": service["build"]}
        build = tree(service.get("build"))
        context = build.get("context")
        if isinstance(context, str) and not _REMOTE.match(context):
            build["context"] = _relocated(context, self._directory)
        if "environment" in service:
            service["environment"] = _assignments(service["environment"], self._variables)
        if "env_file" in service:
            service["env_file"] = [_env_file(entry, self._directory) for entry in items(service["env_file"])]


def _located(node: ScalarNode, text: Text) -> Text:
    """Return the value of a scalar with the offset of each character, as far as its spelling allows."""
    start, end = node.start_mark.index, node.end_mark.index
    properties = _PROPERTIES.match(text, start, end)
    start = properties.end() if properties else start
    value: str = node.value
    if node.style in _SPELLINGS:
        pieces = _aligned(text.cut(start + 1, end - 1), value, _SPELLINGS[node.style])
        if pieces is not None:
            return Text(pieces)
    elif node.style in ("|", ">"):
        body = value.rstrip("\n")
        index = text.find(body, text.find("\n", start, end) + 1, end)
        if index >= 0 and body:
            last = replace(text.cut(index, index + 1).pieces[0], text=value[len(body) :], verbatim=False)
            return text.cut(index, index + len(body)).joined([Text((last,))])
    elif text.startswith(value, start):
        return text.cut(start, start + len(value))

    piece = text.cut(min(start, len(text) - 1), len(text)).pieces[0]
    return Text((replace(piece, text=value, verbatim=False),))


def _aligned(inside: Text, value: str, spelling: re.Pattern[str]) -> list[Piece] | None:
    """Return the pieces of a quoted scalar, or None when it is not spelled character by character."""
    if inside == value:
        return list(inside.pieces)
    tokens = list(spelling.finditer(inside))
    if len(tokens) != len(value):
        return None
    pieces: list[Piece] = []
    for token, character in zip(tokens, value, strict=True):
        piece = inside.cut(token.start(), token.start() + 1).pieces[0]
        if len(token[0]) == 1 and token[0] != character:
            return None
        pieces.append(piece if len(token[0]) == 1 else replace(piece, text=character, verbatim=False))

    return pieces


def _env_file(entry: Data, directory: Path) -> Data:
    """Return an entry of `env_file` in its long form, with an absolute path."""
    form: Tree = dict(entry) if isinstance(entry, dict) else {"path": entry}
    path = form.get("path")
    if isinstance(path, Text):
        form["path"] = _relocated(path, directory)

    return form


def _assignments(environment: Data, variables: Mapping[str, Text]) -> Data:
    """Return an `environment`, list or mapping, as a mapping; a bare name takes the value of the variable."""
    result: Tree = {}
    if isinstance(environment, list):
        for entry in environment:
            if isinstance(entry, Text):
                name, equals, _ = entry.partition("=")
                result[name] = entry.cut(len(name) + 1, len(entry)) if equals else None
    else:
        result.update(tree(environment))

    return {name: variables.get(name) if value is None else value for name, value in result.items()}


def _relocated(text: Text, directory: Path) -> Text:
    return Text((Piece(str(absolute(directory, text))),)) if text and not text.problem else text
