"""Change image tags in the files they come from, and not a single character more."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from compose_chap.detection import classify
from compose_chap.edit import Edit
from compose_chap.errors import ComposeFileError, StackError
from compose_chap.image import Reference
from compose_chap.model import Role
from compose_chap.project.compose_files import Model, load, locate
from compose_chap.project.document import Data
from compose_chap.project.variables import Piece, Text, decode, encode

_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_REPOSITORY = re.compile(r"[^\s@$]+")


@dataclass(frozen=True)
class NewTag:
    """The tag that an image should get, and its digest if it should be pinned to one."""

    tag: str
    digest: str = ""


@dataclass(frozen=True, order=True)
class _Splice:
    """Characters `start` to `end` of the decoded `path`, to be replaced by `text`."""

    path: Path
    start: int
    end: int
    text: str


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
        for service in model.services.values():
            if service.image is not None and service.image.problem:
                # Its image is unknown; Compose would refuse it too.
                piece = service.image.origin or Piece("")
                raise _refusal(model, piece, service.image.problem, "Set it in .env or in the environment.")
        raise StackError(
            f"No service in {', '.join(map(str, model.layout.files))} runs CHAP's API.",
            hint="Name the right files with -f.",
        )
    return tuple(chosen)


def edits(model: Model, wanted: Mapping[str, NewTag]) -> tuple[Edit, ...]:
    """Return the edits that give each service of `wanted` its reference, and change nothing else.

    Raise ComposeFileError when that cannot be done safely. Services that have it already need no edit.
    """
    splices = sorted({splice for name, reference in wanted.items() for splice in _splices(model, name, reference)})
    for first, second in zip(splices, splices[1:]):
        if first.path == second.path and second.start < max(first.end, first.start + 1):
            raise _refusal(
                model,
                Piece("", first.path, first.start),
                f"services of different tags ({first.text}, {second.text}) share this text",
                "Give each service an image line of its own.",
            )
    result = tuple(_edit(model, path, splices) for path in dict.fromkeys(splice.path for splice in splices))
    if result:
        _check(model, result, wanted, splices[0])

    return result


def edited(model: Model, changes: Iterable[Edit]) -> Model:
    """Return the project as its files define it with these edits. Raise ComposeFileError."""
    contents = {**model.contents, **{edit.path: edit.after for edit in changes if edit.after is not None}}

    def read(path: Path) -> bytes:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path]

    layout = model.layout
    return load(layout.files, layout.project_directory, layout.env_files, model.environ, read)


def diff(changes: Iterable[Edit]) -> str:
    """Return edits as a unified diff for people."""
    lines: list[str] = []
    for edit in changes:
        before, after = (
            re.findall(r"[^\n]*\n|[^\n]+", (content or b"").decode("utf-8", "replace"))
            for content in (edit.before, edit.after)
        )
        for line in difflib.unified_diff(before, after, str(edit.path), str(edit.path)):
            lines.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")

    return "".join(lines)


def _splices(model: Model, name: str, reference: NewTag) -> Iterator[_Splice]:
    """Yield the replacements that give a service `reference`. Raise ComposeFileError."""
    if not _TAG.fullmatch(reference.tag):
        raise ComposeFileError(f"{reference.tag!r} is not an image tag", hint="A tag looks like v2.1.0.")
    if reference.digest and not _DIGEST.fullmatch(reference.digest):
        raise ComposeFileError(f"{reference.digest!r} is not a digest", hint="A digest looks like sha256:7839f1e1...")
    image = _image(model, name)
    current = Reference.parse(image)
    repository, tag, digest = current.repository, current.tag, current.digest
    if digest and not reference.digest:
        raise _refusal(
            model,
            image.cut(len(image) - len(digest), len(image)).pieces[0],
            f"service {name} is pinned to the digest {digest[:19]}..., which no tag can change",
            "Give --digest to write the new version with its digest, or remove the digest from the file.",
        )
    tag_start, tag_end = (len(repository) + 1, len(repository) + 1 + len(tag)) if tag else (len(repository),) * 2
    if not digest and not tag and reference.digest:
        changes = [(tag_end, tag_end, f":{reference.tag}@{reference.digest}")]
    else:
        changes = [(tag_start, tag_end, reference.tag if tag else f":{reference.tag}")]
        if reference.digest:
            start = len(image) - len(digest)
            changes.append((start, len(image), reference.digest if digest else f"@{reference.digest}"))
    for start, end, text in changes:
        if image[start:end] != text:
            yield _splice(model, name, image, start, end, text)


def _image(model: Model, name: str) -> Text:
    """Return the image of a service. Raise ComposeFileError when it cannot be split into its parts."""
    service = model.services.get(name)
    if service is None:
        raise ComposeFileError(f"there is no service {name} in these files")
    image = service.image
    if not image:
        raise ComposeFileError(
            f"service {name} has no image in these files",
            path=str(model.layout.files[0]),
            hint="It is built from source: use docker chap upgrade VERSION." if service.build else "Give it an image.",
        )
    origin = image.origin or Piece("")
    if image.problem:
        raise _refusal(
            model,
            origin,
            f"the image of service {name} is unknown: {image.problem}",
            "Set the variable where Compose finds it, in .env for example.",
        )
    current = Reference.parse(image)
    well_formed = _REPOSITORY.fullmatch(current.repository) and (_TAG.fullmatch(current.tag) or not current.tag)
    if not well_formed or image.endswith((":", "@")) or ":@" in image:
        raise _refusal(
            model,
            origin,
            f"service {name} has an image that Docker does not understand: {image!r}",
            "Correct the image, or set the variables in it.",
        )

    return image


def _splice(model: Model, name: str, image: Text, start: int, end: int, text: str) -> _Splice:
    """Return the replacement in a file that puts `text` in place of the characters `start` to `end` of an image."""
    if start == end:
        last = image.cut(0, start).pieces[-1]
        _require_editable(model, name, last)
        return _Splice(last.path or Path(), last.end, last.end, text)

    pieces = image.cut(start, end).pieces
    for index, piece in reversed(list(enumerate(pieces))):
        # When the tag consists of several pieces, changing one is enough if the others stay as they are: v${VERSION}.
        before = "".join(other.text for other in pieces[:index])
        after = "".join(other.text for other in pieces[index + 1 :])
        if len(before) + len(after) < len(text) and text.startswith(before) and text.endswith(after):
            _require_editable(model, name, piece)
            return _Splice(piece.path or Path(), piece.offset, piece.end, text[len(before) : len(text) - len(after)])
    raise _refusal(
        model,
        image.origin or pieces[0],
        f"the tag of service {name} is put together from several places, and {text} would change more than one",
        "Let one variable hold the whole tag, or write it into the image.",
    )


def _require_editable(model: Model, name: str, piece: Piece) -> None:
    if piece.variable:
        raise ComposeFileError(
            f"service {name} takes {piece.text!r} from {piece.variable} of the process environment,"
            " which wins over every file",
            hint=f"Unset {piece.variable}, or set it in .env instead, and run this again.",
        )
    if piece.path is None or not piece.verbatim:
        raise _refusal(
            model,
            piece,
            f"{piece.text!r}, for the image of service {name}, is written with escapes or over several lines",
            "Write it plainly on one line, like image: repository:tag, and run this again.",
        )


def _edit(model: Model, path: Path, splices: Iterable[_Splice]) -> Edit:
    before = model.contents[path]
    text = decode(before)
    for splice in sorted(splices, reverse=True):
        if splice.path == path:
            text = text[: splice.start] + splice.text + text[splice.end :]

    return Edit(path, before, encode(text))


def _check(model: Model, changes: Iterable[Edit], wanted: Mapping[str, NewTag], first: _Splice) -> None:
    """Read the edited project. Raise ComposeFileError unless exactly the wanted images changed."""
    after = edited(model, changes)
    allowed = {("services", name, "image") for name in wanted}
    others = [".".join(path) for path in _differences(model.data, after.data) if path not in allowed]
    if others:
        raise _refusal(
            model,
            Piece("", first.path, first.start),
            f"a change here would also change {', '.join(sorted(others))}",
            "Give the CHAP services a tag, or a variable, of their own.",
        )
    for name, reference in wanted.items():
        image = Reference.parse(after.services[name].image or "")
        if (image.tag, image.digest) != (reference.tag, reference.digest):
            raise _refusal(
                model,
                Piece("", first.path, first.start),
                f"service {name} would become {after.services[name].image!r} instead of {reference.tag}",
                "Change this file by hand.",
            )


def _differences(before: Data, after: Data, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths at which two projects differ, except for extensions (`x-`), which Compose ignores."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            if key.startswith("x-") and len(where) in (0, 2):
                continue
            if (key in before) != (key in after):
                yield (*where, key)
            else:
                yield from _differences(before[key], after[key], (*where, key))
    elif before != after:
        yield where


def _refusal(model: Model, piece: Piece, problem: str, hint: str) -> ComposeFileError:
    path, line = locate(piece, model.contents) or ("", 0)
    return ComposeFileError(problem, path=str(path), line=line, hint=hint)
