"""Tags in Compose files: small files with what is expected beside each, and projects of several files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from compose_chap.errors import ComposeFileError
from compose_chap.project import compose_files, pin
from compose_chap.project.compose_files import Model

CASES = Path(__file__).parent / "composefiles"
EDITED = sorted(path for path in CASES.glob("*.yml") if path.with_suffix(".expected.yml").exists())
REFUSED = sorted(CASES.glob("*.refused"))
DIGEST = "sha256:" + "0123456789abcdef" * 4
ROOT = Path("/p")


def model(files: Mapping[str, str], environ: Mapping[str, str] | None = None, **options: object) -> Model:
    """Load the project that Compose would find in /p among `files`."""
    contents = {ROOT / name: text.encode() for name, text in files.items()}

    def read(path: Path) -> bytes:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path]

    layout = compose_files.discover(ROOT, environ or {}, contents.__contains__, read, **options)  # type: ignore[arg-type]
    return compose_files.load(layout.files, layout.project_directory, layout.env_files, environ or {}, read)


def pinned(files: Mapping[str, str], environ: Mapping[str, str] | None = None, **options: object) -> dict[str, str]:
    """Pin chap, and worker if there is one, to v2.1.0; return the files that changed."""
    loaded = model(files, environ, **options)
    wanted = {name: pin.NewTag("v2.1.0") for name in ("chap", "worker") if name in loaded.services}
    return {str(edit.path.relative_to(ROOT)): (edit.after or b"").decode() for edit in pin.edits(loaded, wanted)}


def load(path: Path) -> Model:
    return compose_files.load([path], None, [], {}, Path.read_bytes)


@pytest.mark.parametrize("path", EDITED, ids=lambda path: path.stem)
def test_only_the_tags_change(path: Path) -> None:
    before, expected = path.read_bytes(), path.with_suffix(".expected.yml").read_bytes()
    edits = pin.edits(load(path), dict.fromkeys(("chap", "worker"), pin.NewTag("v2.1.0")))
    assert [edit.after for edit in edits] == [expected] * (before != expected)


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_what_cannot_be_edited_safely_is_refused_with_file_and_line(path: Path) -> None:
    line, message = re.fullmatch(r"(?:(\d+): )?(.*)", path.read_text().strip()).groups()  # type: ignore[union-attr]
    with pytest.raises(ComposeFileError) as refusal:
        pin.edits(load(path.with_suffix(".yml")), dict.fromkeys(("chap", "worker"), pin.NewTag("v2.1.0")))
    assert message in refusal.value.message
    assert Path(refusal.value.path).parent == CASES
    assert refusal.value.line == int(line or refusal.value.line)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("v2.0.0@" + "sha256:" + "f" * 64, f"v2.1.0@{DIGEST}"),
        ("v2.0.0", f"v2.1.0@{DIGEST}"),
    ],
)
def test_a_digest_is_written_with_the_tag(before: str, after: str) -> None:
    loaded = model({"compose.yml": f"services:\n  chap: {{image: 'chap:{before}'}}\n"})
    (edit,) = pin.edits(loaded, {"chap": pin.NewTag("v2.1.0", DIGEST)})
    assert (edit.after or b"").decode() == f"services:\n  chap: {{image: 'chap:{after}'}}\n"


@pytest.mark.parametrize("image", ["chap", "chap@sha256:" + "f" * 64])
def test_a_digest_is_written_where_no_tag_was(image: str) -> None:
    loaded = model({"compose.yml": f"services: {{chap: {{image: '{image}'}}}}"})
    (edit,) = pin.edits(loaded, {"chap": pin.NewTag("v2.1.0", DIGEST)})
    assert (edit.after or b"").decode() == f"services: {{chap: {{image: 'chap:v2.1.0@{DIGEST}'}}}}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("CHAP_VERSION=v2.0.0", "CHAP_VERSION=v2.1.0"),
        ('export CHAP_VERSION = "v2.0.0"  # was v1', 'export CHAP_VERSION = "v2.1.0"  # was v1'),
        ("CHAP_VERSION: 'v2.0.0'\r", "CHAP_VERSION: 'v2.1.0'\r"),
        ("CHAP_VERSION=v1\nCHAP_VERSION=v2.0.0 # v1", "CHAP_VERSION=v1\nCHAP_VERSION=v2.1.0 # v1"),
        ("BASE=v2.0.0\nCHAP_VERSION=${BASE}", "BASE=v2.1.0\nCHAP_VERSION=${BASE}"),
        ("CHAP_VERSION=${NONE:-v2.0.0}", "CHAP_VERSION=${NONE:-v2.1.0}"),
    ],
)
def test_a_variable_is_changed_on_the_line_of_the_env_file(line: str, expected: str) -> None:
    compose = "services: {chap: {image: 'chap:${CHAP_VERSION:-v1}'}, worker: {image: 'worker:$CHAP_VERSION'}}\n"
    assert pinned({"compose.yml": compose, ".env": f"# v2.0.0\n{line}\nA=b"}) == {".env": f"# v2.0.0\n{expected}\nA=b"}


def test_an_empty_variable_leaves_the_default_to_be_changed() -> None:
    files = {"compose.yml": "services: {chap: {image: 'chap:${V:-v2.0.0}'}}", ".env": "V=\n"}
    assert pinned(files) == {"compose.yml": "services: {chap: {image: 'chap:${V:-v2.1.0}'}}"}


def test_the_process_environment_wins_and_is_named() -> None:
    with pytest.raises(ComposeFileError, match="CHAP_VERSION of the process environment"):
        pinned(
            {"compose.yml": "services: {chap: {image: 'chap:$CHAP_VERSION'}}", ".env": "CHAP_VERSION=v1"},
            {"CHAP_VERSION": "v2.0.0"},
        )


def test_a_variable_that_feeds_something_else_is_refused() -> None:
    compose = "services: {chap: {image: 'chap:$V'}, jobs: {image: 'jobs:$V', environment: {VERSION: $V}}}"
    with pytest.raises(ComposeFileError, match=r"services\.jobs\.environment\.VERSION, services\.jobs\.image"):
        pinned({"compose.yml": compose, ".env": "V=v2.0.0"})


def test_a_variable_in_the_environment_of_a_container_is_refused() -> None:
    compose = "services: {chap: {image: 'chap:$V', env_file: .env}}"
    with pytest.raises(ComposeFileError, match=r"\.env:1: .*services\.chap\.environment\.V"):
        pinned({"compose.yml": compose, ".env": "V=v2.0.0"})


def test_the_last_env_file_wins() -> None:
    compose = "services: {chap: {image: 'chap:$V'}}"
    files = {"compose.yml": compose, ".env": "V=v0", "a.env": "V=v1", "b.env": "V=v2.0.0"}
    assert pinned(files, env_files=[Path("a.env"), Path("b.env")]) == {"b.env": "V=v2.1.0"}


def test_the_file_that_wins_is_edited() -> None:
    files = {
        "compose.yml": "services: {chap: {image: 'chap:v2.0.0'}, worker: {image: 'worker:v2.0.0'}}",
        "compose.override.yml": "services: {chap: {image: 'mirror/chap:v2.0.0'}}",
    }
    assert pinned(files) == {
        "compose.yml": "services: {chap: {image: 'chap:v2.0.0'}, worker: {image: 'worker:v2.1.0'}}",
        "compose.override.yml": "services: {chap: {image: 'mirror/chap:v2.1.0'}}",
    }


def test_includes_are_followed_with_their_own_directories_and_env_files() -> None:
    files = {
        "compose.yml": "include: ['${WHERE:-sub}/a.yml', "
        "{path: [b.yml, c.yml], env_file: [x.env, y.env], project_directory: d}]",
        "sub/a.yml": "include: [deep/chap.yml]",
        "sub/deep/chap.yml": "services: {chap: {image: 'chap:$V'}}",
        "sub/deep/.env": "V=v2.0.0",
        "b.yml": "services: {worker: {image: 'worker:v0', env_file: w.env}}",
        "c.yml": "services: {worker: {image: 'worker:$V'}}",
        "x.env": "V=v1",
        "y.env": "V=v2.0.0",
        "d/w.env": "A=b",
    }
    assert pinned(files) == {"sub/deep/.env": "V=v2.1.0", "y.env": "V=v2.1.0"}
    assert [str(path.relative_to(ROOT)) for path in model(files).contents] == [
        "compose.yml",
        "sub/a.yml",
        "sub/deep/.env",
        "sub/deep/chap.yml",
        "x.env",
        "y.env",
        "b.yml",
        "c.yml",
        "d/w.env",
    ]
    assert model(files).services["worker"].environment == {"A": "b"}


def test_the_environment_of_the_includer_wins_over_the_env_file_of_an_include() -> None:
    files = {
        "compose.yml": "include: [sub/a.yml]",
        "sub/a.yml": "services: {chap: {image: 'chap:$V'}}",
        "sub/.env": "V=v1",
        ".env": "V=v2.0.0",
    }
    assert pinned(files) == {".env": "V=v2.1.0"}


def test_extended_files_are_followed_from_their_own_directory() -> None:
    files = {
        "compose.yml": "services: {chap: {extends: {file: a/base.yml, service: base}}}",
        "a/base.yml": "services: {base: {extends: {file: b/more.yml, service: more}, env_file: a.env}}",
        "a/b/more.yml": "services: {more: {image: 'chap:v2.0.0', environment: [A=1]}}",
        "a/a.env": "B=2",
    }
    assert pinned(files) == {"a/b/more.yml": "services: {more: {image: 'chap:v2.1.0', environment: [A=1]}}"}
    assert model(files).services["chap"].environment == {"A": "1", "B": "2"}


def test_a_conflict_between_includes_is_refused() -> None:
    with pytest.raises(ComposeFileError, match=r"services\.chap conflicts"):
        model(
            {
                "compose.yml": "include: [a.yml]\nservices: {chap: {image: 'a'}}",
                "a.yml": "services: {chap: {image: 'b'}}",
            }
        )


def test_files_that_include_each_other_without_end_are_refused() -> None:
    files = {f"{n}.yml": f"include: [{n + 1}.yml, ./{n + 1}.yml]" for n in range(40)}
    with pytest.raises(ComposeFileError, match="include each other without end"):
        model({**files, "40.yml": "services: {}", "compose.yml": "include: [0.yml]"})


@pytest.mark.parametrize(
    ("bomb", "problem"),
    [
        (
            "a: &a [x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)),
            "aliases that multiply each other",
        ),
        ("[" * 2000, "cannot read"),
        ("services: {chap: {image: " + "'" + "${A:-" * 1100 + "}" * 1100 + "'}}", "nested too deeply"),
    ],
)
def test_bombs_are_refused(bomb: str, problem: str) -> None:
    with pytest.raises(ComposeFileError, match=problem):
        pinned({"compose.yml": bomb})


def test_discovery_searches_parents_and_takes_the_first_of_each_kind() -> None:
    existing = {
        Path("/a/compose.yml"),
        Path("/a/docker-compose.yml"),
        Path("/a/compose.override.yaml"),
        Path("/a/.env"),
    }
    layout = compose_files.discover(
        Path("/a/b/c"), {}, existing.__contains__, lambda path: b"COMPOSE_PROFILES=one, two"
    )
    assert layout == compose_files.Layout(
        (Path("/a/compose.yml"), Path("/a/compose.override.yaml")),
        Path("/a"),
        (Path("/a/.env"),),
        ("one", "two"),
    )


def test_a_folder_called_env_is_no_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    (tmp_path / "compose.yml").write_text("services: {a: {image: x}}")
    layout = compose_files.discover(tmp_path, {}, Path.exists, Path.read_bytes)
    assert layout == compose_files.Layout((tmp_path / "compose.yml",), tmp_path)


def test_compose_file_is_split_at_its_separator() -> None:
    env = b"COMPOSE_FILE=x/a.yml;b.yml\nCOMPOSE_PATH_SEPARATOR=;\n"
    layout = compose_files.discover(ROOT, {}, {ROOT / ".env"}.__contains__, lambda path: env)
    assert layout.files == (ROOT / "x/a.yml", ROOT / "b.yml")
    assert layout.project_directory == ROOT / "x"


def test_no_compose_file_is_an_error_of_ours() -> None:
    with pytest.raises(ComposeFileError, match="no Compose file in /p or above"):
        compose_files.discover(ROOT, {}, lambda path: False, Path.read_bytes)


def test_the_model_says_what_a_service_is() -> None:
    service = model(
        {
            "compose.yml": """
name: Demo
services:
  chap:
    image: ${COMPOSE_PROJECT_NAME}/chap:v2.0.0
    build: {context: src, dockerfile: Dockerfile.worker}
    command: celery -A chap_core worker
    entrypoint: [tini, --]
    environment: [A=1, B]
    profiles: [all]
"""
        },
        {"B": "2"},
    ).services["chap"]
    assert (service.image, service.location) == ("demo/chap:v2.0.0", (ROOT / "compose.yml", 5))
    assert service.command == ("celery", "-A", "chap_core", "worker")
    assert service.entrypoint == ("tini", "--")
    assert service.environment == {"A": "1", "B": "2"}
    assert service.build == {"context": "/p/src", "dockerfile": "Dockerfile.worker"}
    assert service.profiles == ("all",)


def test_the_diff_is_for_people() -> None:
    loaded = model({"compose.yml": "services:\n  chap:\n    image: chap:v2.0.0"})
    text = pin.diff(pin.edits(loaded, {"chap": pin.NewTag("v2.1.0")}))
    assert text.splitlines()[-4:] == [
        "-    image: chap:v2.0.0",
        "\\ No newline at end of file",
        "+    image: chap:v2.1.0",
        "\\ No newline at end of file",
    ]


@pytest.mark.parametrize("reference", [pin.NewTag("v2 1"), pin.NewTag(""), pin.NewTag("v2", "sha256:1")])
def test_what_is_no_tag_or_digest_is_refused(reference: pin.NewTag) -> None:
    with pytest.raises(ComposeFileError):
        pin.edits(model({"compose.yml": "services: {chap: {image: 'chap:v1'}}"}), {"chap": reference})
