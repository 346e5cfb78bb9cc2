"""The command that shows the version: version."""

from __future__ import annotations

from compose_chap import __version__
from compose_chap.cli.call import Call, common
from compose_chap.cli.command_table import command


@command("version")
@common
def version_command(call: Call) -> None:
    """Show the version of this tool."""
    call.result({"tool_version": __version__}, f"docker chap {__version__}")
