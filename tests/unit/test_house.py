"""The rules of the house: which way imports run, which module has which library, which ones talk to people."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import compose_chap

PACKAGE = Path(compose_chap.__file__).parent

# A module may import from its own folder and from the floors below. Folders of one floor do not know each other.
FLOORS = (
    ("__main__",),
    ("plugin",),
    ("cli",),
    ("report",),
    ("operations",),
    ("schedule",),
    ("copies", "alarms"),
    ("preflight", "restore"),
    ("transaction",),
    ("backups",),
    ("stack",),
    ("postgres", "records", "project"),
    ("engine", "detection"),
    ("processes",),
    ("model", "revisions"),
    ("image", "check", "compose_labels", "edit", "redact", "units", "reading", "timeline"),
    ("errors", "ownership"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# The same inside a folder that has folders of its own.
INNER_FLOORS = (
    ("cli.commands", "cli", "cli.screen"),
    ("report", "report.facts"),
    ("transaction", "transaction.data", "transaction.run"),
    ("postgres.untrusted", "postgres"),
    ("records", "records.files"),
    ("engine", "engine.registries"),
)

# Every module by its dotted name below the package: `cli.app`, `errors`.
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)

ROOT = PACKAGE.parent
# What runs inside of the sample's images is CHAP's, so to say.
SAMPLE_IMAGES = ROOT / "tests" / "sample" / "images"
SOURCES = sorted(
    path for path in (*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")) if not path.is_relative_to(SAMPLE_IMAGES)
)

# These talk to people. All others are given what they need and return data, so that a test can run them too.
FACES = [name for name in MODULES if name in ("__main__", "plugin") or name.startswith("cli.")]

# One library, one door: the only folder or module that would change with it.
DOORS = {
    "click": "cli",
    "docker": "engine",
    "requests": "engine",  # the errors of the docker package
    "subprocess": "processes",
    "ruamel": "project.document",
    "httpx": "engine.registries",
    "apprise": "alarms.services",
    "fcntl": "records",
    "leather": "report.plots",
}
ALSO = {
    "docker": ("records.engine_lock",),  # the lock of a stack is a container, and its errors are docker's
    "subprocess": ("engine.link",),  # its processes live as long as the connection
    "httpx": ("alarms.ping",),
}

MOST_IN_A_FOLDER = 11
LARGER = {
    "preflight": 12,
    "backups": 12,
    "operations": 13,
    "stack": 12,
    "cli.commands": 19,  # a module for each command
    "cli.screen": 16,
}
LONGEST = 300
# Longer so far: these may only shrink.
LONGER = {
    **{"postgres.server": 360, "engine.engine": 420},
    **{"project.compose_files": 400, "project.variables": 350, "cli.screen.sentences": 320},
}

# Words that say nothing of what they name: a reader would have to learn them first. And words that a name may hold in
# one sense only.
DIALECT = {"one", "ones", "found", "said", "told", "there"}
SENSES = {
    "place": (),
    "foreign": ("foreign_key", "foreign_keys", "ForeignKey", "FOREIGN_KEYS"),  # of a database
}
# And words that have their one sense only in these modules.
AT_HOME = {
    "source": (
        "restore.",
        "cli.commands.restore",
        "cli.commands.rehearse",
        "operations.rehearse",
    ),  # what a restore reads
    "settings": ("postgres.", "backups.manifest"),  # PostgreSQL's
    "keep": ("cli.commands.prune", "records.steps"),  # retention, and the step of every journal
}

SCREEN_AND_EXIT = {"print", "input", "exit", "quit", "sys.exit", "os._exit"}
CLOCK = {"time.time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def test_every_folder_and_every_noun_has_a_floor() -> None:
    assert {room(name) for name in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    own = room(module)
    wrong = [
        name
        for name in imports(tree(module))
        if room(name) in FLOOR and FLOOR[room(name)] <= FLOOR[own] and room(name) != own
    ]
    assert not wrong, f"{module} lies below {wrong}, or beside"


@pytest.mark.parametrize("floors", INNER_FLOORS)
def test_imports_run_downwards_inside_a_folder(floors: tuple[str, ...]) -> None:
    assert {name.rpartition(".")[0] for name in MODULES if room(name) == room(floors[0])} == set(floors)
    for number, folder in enumerate(floors):
        for module in [name for name in MODULES if name.rpartition(".")[0] == folder]:
            above = {name for name in imports(tree(module)) if folder_of(name) in floors[:number]}
            assert not above, f"{module} lies below {above}"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_by_its_door(module: str) -> None:
    for name in imports(tree(module)):
        if name in DOORS:
            inside = f"{module}.".startswith(f"{DOORS[name]}.") or module in ALSO.get(name, ())
            assert inside, f"{name} belongs to {DOORS[name]}"
        else:
            assert room(name) in FLOOR or name in sys.stdlib_module_names, f"{name} has no door"


@pytest.mark.parametrize("folder", sorted({name.rpartition(".")[0] for name in MODULES if "." in name}))
def test_a_folder_is_a_subject_and_says_which(folder: str) -> None:
    path = PACKAGE.joinpath(*folder.split("."))
    assert len(list(path.glob("*.py"))) - 1 <= LARGER.get(folder, MOST_IN_A_FOLDER)
    assert ast.get_docstring(ast.parse((path / "__init__.py").read_text()))


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FACES])
def test_only_the_faces_print_ask_and_exit(module: str) -> None:
    assert not SCREEN_AND_EXIT & set(calls(tree(module)))


@pytest.mark.parametrize("module", [name for name in MODULES if name not in [*FACES, "records.run_records"]])
def test_only_run_records_reads_the_clock(module: str) -> None:
    assert not CLOCK & set(calls(tree(module)))


@pytest.mark.parametrize("module", MODULES)
def test_a_shell_is_given_only_what_is_written_here(module: str) -> None:
    source = tree(module)
    assert not [ast.unparse(script) for script in shell_scripts(source) if not written_here(script, source)]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "compose_labels"])
def test_only_compose_labels_spells_a_label_of_compose(module: str) -> None:
    assert "com.docker.compose" not in source_of(module)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short(module: str) -> None:
    lines = source_of(module).splitlines()
    assert len(lines) <= LONGER.get(module, LONGEST)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_plain(path: Path) -> None:
    wrong = [(name, line) for name, line in names_in(ast.parse(path.read_text())) if not is_plain(name)]
    assert not wrong, f"say what it is: {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_a_word_means_the_same_everywhere(module: str) -> None:
    for word, homes in AT_HOME.items():
        names = [name for name, _ in names_in(tree(module)) if word in words_of(name)]
        assert not names or module.startswith(homes), f"{word} means something else in {homes}: {names}"


def test_a_class_has_a_name_of_its_own() -> None:
    classes = [node.name.lstrip("_") for name in MODULES for node in tree(name).body if isinstance(node, ast.ClassDef)]
    assert not {name for name in classes if classes.count(name) > 1}


def test_the_rule_of_names_sees_every_name() -> None:
    source = "import a as said\nclass Told:\n    found: int\n    def one(self, there, *ones): pass\n"
    source += "for place in x: pass\nwith y as foreign: pass\ntry: pass\nexcept E as found_it: pass\nself.told_of = z\n"
    names = [name for name, _ in names_in(ast.parse(source))]
    assert not any(map(is_plain, (name for name in names if name not in ("self",)))), names
    assert len(names) == 11 and is_plain("foreign_keys") and is_plain("done") and is_plain("standing")


def test_the_rules_see_what_they_forbid() -> None:
    """See that the walk over a module finds every form of an import and of a call."""
    source = ast.parse(
        "from compose_chap import __version__, units\n"
        "from compose_chap.engine.engine import Engine as E\n"
        "from compose_chap.stack import chap\n"
        "import ruamel.yaml, os\n"
        "def f():\n    import httpx\n    print(sys.exit(datetime.now()))\n"
    )
    assert list(imports(source)) == ["units", "engine.engine", "stack", "ruamel", "os", "httpx"]
    assert set(calls(source)) == {"print", "sys.exit", "datetime.now"}
    source = ast.parse(
        "N = 'x'\n"
        "good = [*('sh', '-c'), f'exec {N}', 'sh', name]\n"
        "script = 'a' + name\n"
        "run(['sh', '-c', script]); run(('sh', '-c', f'b {name}')); run(['sh', '-c', *words])\n"
    )
    bad = [ast.unparse(script) for script in shell_scripts(source) if not written_here(script, source)]
    assert sorted(bad) == ["*words", "f'b {name}'", "script"]


def tree(module: str) -> ast.Module:
    """Return the module's syntax tree."""
    return ast.parse(source_of(module))


def source_of(module: str) -> str:
    """Return the module's text."""
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()


def room(module: str) -> str:
    """Return the folder that the module lies in, or the module itself where it stands alone."""
    return module.partition(".")[0]


def folder_of(name: str) -> str:
    """Return the folder that a name is imported from: that of a module, or a folder whose modules are imported."""
    return name.rpartition(".")[0] if name in MODULES else name


def imports(source: ast.Module) -> Iterator[str]:
    """Yield the modules of this package, dotted, and the libraries that are imported anywhere in the source."""
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "no relative imports"
            top, _, below = node.module.partition(".")
            if top != "compose_chap":
                yield top
            elif below in FLOOR or "." in below:
                # Names of a module, or modules of a folder: either way what lies in that folder.
                yield below
            else:
                yield from (alias.name for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("compose_chap.").partition(".")[0] for alias in node.names)


def names_in(source: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that the source gives, with its line."""
    for node in ast.walk(source):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name, node.lineno


def words_of(name: str) -> set[str]:
    """Return the words that a name is made of."""
    return set(re.sub("([a-z])([A-Z])", r"\1_\2", name).lower().split("_"))


def is_plain(name: str) -> bool:
    """Return whether a name holds no word of the dialect, and each other word in its one sense."""
    words = words_of(name)
    return not words & DIALECT and not any(word in words and name not in allowed for word, allowed in SENSES.items())


def calls(source: ast.Module) -> Iterator[str]:
    """Yield the name of everything that is called in the source, as it is spelled."""
    return (ast.unparse(node.func) for node in ast.walk(source) if isinstance(node, ast.Call))


def shell_scripts(source: ast.Module) -> Iterator[ast.expr]:
    """Yield what follows `sh -c` in a list or tuple anywhere in the source."""
    for node in ast.walk(source):
        if isinstance(node, (ast.List, ast.Tuple)):
            words = [word for part in node.elts for word in flat(part)]
            spelled = [word.value if isinstance(word, ast.Constant) else None for word in words]
            yield from (words[at] for at in range(2, len(words)) if spelled[at - 2 : at] == ["sh", "-c"])


def flat(word: ast.expr) -> list[ast.expr]:
    """Return the words of a starred list that is written out, else the word."""
    return word.value.elts if isinstance(word, ast.Starred) and isinstance(word.value, ast.Tuple) else [word]


def written_here(script: ast.expr, source: ast.Module) -> bool:
    """Return whether a text is made of nothing but what stands in the source."""
    if isinstance(script, ast.Constant):
        return True
    if isinstance(script, ast.JoinedStr):
        return all(written_here(part, source) for part in script.values)
    if isinstance(script, ast.FormattedValue):
        return written_here(script.value, source)
    if isinstance(script, ast.BinOp):
        return written_here(script.left, source) and written_here(script.right, source)
    if isinstance(script, ast.Name):
        values = [
            node.value
            for node in ast.walk(source)
            if isinstance(node, ast.Assign) and script.id in map(ast.unparse, node.targets)
        ]
        return bool(values) and all(written_here(value, source) for value in values)
    return False
