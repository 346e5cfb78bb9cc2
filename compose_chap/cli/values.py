"""Completion of the values of options and arguments. Light: the real work is imported when a shell asks."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _known(kind: str) -> Completer:
    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from compose_chap.cli import complete as answers

        return answers.values(kind, context, incomplete)

    return complete


projects, backups, versions = _known("PROJECT"), _known("BACKUP"), _known("VERSION")


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave the word to the shell, which knows the files."""
    return [CompletionItem(incomplete, type="file")]
