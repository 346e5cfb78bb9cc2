"""The rules of the house: which way imports run, which module has which library, which ones talk to people."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import compose_chap

PACKAGE = Path(compose_chap.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))

# A module may import only from those behind it. Put a new one as far back as its imports allow.
ORDER = [
    *("plugin", "cli", "cli_complete"),
    *("cli_restore", "cli_rehearse", "cli_change", "cli_pin", "cli_backup", "cli_prune", "cli_status", "cli_options"),
    *("metrics", "fleet", "status", "screen", "rehearse"),
    *("recover", "rollback", "restore", "newer", "beside", "source", "prune", "upgrade"),
    *("transaction", "undo", "keep", "proof", "evidence"),
    "change",
    "releases",
    *("preflight", "preflight_files", "preflight_drift", "drift", "services", "subject", "settings", "notes"),
    *("observe", "verify", "baseline"),
    *("dump_only", "backup", "catalogue", "belongings", "instructions", "archive", "foreign", "quarantine"),
    *("pin", "switch", "checkout"),
    "place",
    *("project", "composefile", "variables"),
    "engine_lock",
    *("world", "chap", "questions", "plainsql", "postgres_dump", "postgres"),
    *("engine_throwaway", "engine", "engine_api", "engine_login"),
    *("process_link", "process"),
    *("dumpfile", "registry", "lock", "state", "durable", "units", "stack", "errors"),
]

# These talk to people. All others are given what they need and return data, so that a test can run them too.
FACES = [name for name in MODULES if name in ("plugin", "screen") or name.startswith("cli")]

# One library, one door: the only module that would change with it.
DOORS = {
    "click": "cli",  # with its parts, cli_*
    "docker": "engine",  # with its parts, engine_*
    "requests": "engine",  # the errors of the docker package
    "subprocess": "process",
    "ruamel": "composefile",
    "httpx": "registry",
    "fcntl": "lock",
}

LONGEST = 300
# Longer so far: these may only shrink.
LONGER = {
    **{"cli_change": 350, "postgres": 360, "engine": 500},
    **{"preflight": 360, "project": 400, "variables": 350, "stack": 350},
}

SCREEN_AND_EXIT = {"print", "input", "exit", "quit", "sys.exit", "os._exit"}
CLOCK = {"time.time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def test_every_module_has_a_place_in_the_order() -> None:
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    place = ORDER.index(module)
    wrong = [name for name in imports(tree(module)) if name in MODULES and ORDER.index(name) <= place]
    assert not wrong, f"{module} comes behind {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_by_its_door(module: str) -> None:
    for name in imports(tree(module)):
        if name in DOORS:
            assert module == DOORS[name] or module.startswith(f"{DOORS[name]}_"), f"{name} belongs to {DOORS[name]}.py"
        else:
            assert name in MODULES or name in sys.stdlib_module_names, f"{name} has no door"


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FACES])
def test_only_the_faces_print_ask_and_exit(module: str) -> None:
    assert not SCREEN_AND_EXIT & set(calls(tree(module)))


@pytest.mark.parametrize("module", [name for name in MODULES if name not in [*FACES, "state"]])
def test_all_others_are_told_the_time(module: str) -> None:
    assert not CLOCK & set(calls(tree(module)))


@pytest.mark.parametrize("module", MODULES)
def test_a_shell_is_given_only_what_is_written_here(module: str) -> None:
    source = tree(module)
    assert not [ast.unparse(script) for script in shell_scripts(source) if not written_here(script, source)]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    lines = (PACKAGE / f"{module}.py").read_text().splitlines()
    assert len(lines) <= LONGER.get(module, LONGEST)


def test_the_rules_see_what_they_forbid() -> None:
    """See that the walk over a module finds every form of an import and of a call."""
    source = ast.parse(
        "from compose_chap import __version__, state\n"
        "from compose_chap.engine import Engine as E\n"
        "import ruamel.yaml, os\n"
        "def f():\n    import httpx\n    print(sys.exit(datetime.now()))\n"
    )
    assert list(imports(source)) == ["state", "engine", "ruamel", "os", "httpx"]
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
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def imports(source: ast.Module) -> Iterator[str]:
    """Yield the modules of this package and the libraries that are imported anywhere in the source."""
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and node.module == "compose_chap":
            yield from (alias.name for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "no relative imports"
            yield node.module.removeprefix("compose_chap.").split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("compose_chap.").split(".")[0] for alias in node.names)


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
        given = [
            node.value
            for node in ast.walk(source)
            if isinstance(node, ast.Assign) and script.id in map(ast.unparse, node.targets)
        ]
        return bool(given) and all(written_here(value, source) for value in given)
    return False
