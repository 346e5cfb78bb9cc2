"""List every sentence that docker chap may show, by folder and module, to be read through or translated.

make sentences
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "compose_chap"

# Two words in a row, as people write them. What is written for PostgreSQL, a shell or Python is not for people.
_WORDS = re.compile(r"[A-Za-z]{2,}[,:]? [a-z']+")
_PROGRAM = re.compile(
    r"\b(SELECT|CREATE|ALTER|DROP|FROM pg_|GRANT|INSERT|ulimit|exec |umask|import |docker_chap_|\$1)"
    r"|[|\\^]{2}|\(\?|\$\{|="
)


def sentences() -> dict[str, list[str]]:
    """Return the sentences of each module, by its path below the package, in the order in which they are written."""
    listed = {path.relative_to(PACKAGE).as_posix(): list(_sentences(path)) for path in sorted(PACKAGE.rglob("*.py"))}
    return {module: lines for module, lines in listed.items() if lines}


def _sentences(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [
        (node.lineno, text)
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and node not in inner | documentation and (text := _text(node))
    ]
    yield from (text for _, text in sorted(texts) if _WORDS.search(text) and not _PROGRAM.search(text))
    for node in ast.walk(tree):
        # The help of a command is what stands below its name.
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_command") and node.decorator_list:
            yield " ".join((ast.get_docstring(node) or "").split())


def _text(node: ast.AST) -> str:
    """Return a literal on one line, each value that is put in shown as braces; empty for what is none."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return " ".join("".join(map(str, parts)).split())
    return " ".join(node.value.split()) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


if __name__ == "__main__":
    for module, lines in sentences().items():
        print(f"\n{module}", *(f"  {line}" for line in lines), sep="\n")
