"""How a command logs in to DHIS2: the option that every such command has, and where the password comes from."""

from __future__ import annotations

import os
from pathlib import Path

import click

from compose_chap.cli.call import Call
from compose_chap.cli.screen import sentences
from compose_chap.errors import UsageError
from compose_chap.stack.chap import basic_credentials

dhis2_options = click.option(
    "--dhis2-user",
    default="",
    metavar="NAME",
    help="Check through DHIS2 too, as this user. The password comes from DHIS2_PASSWORD, from the file that"
    " DHIS2_PASSWORD_FILE names, or is asked for.",
)


def dhis2_credentials(call: Call, user: str) -> dict[str, str]:
    """Return the header that logs in to DHIS2, from the environment, a file or a question; empty where none was wanted.

    A password is never taken from the command line, where everybody on the machine could read it.
    """
    if token := _secret("DHIS2_TOKEN"):
        return {"Authorization": f"ApiToken {token}"}
    user = user or os.environ.get("DHIS2_USERNAME", "")
    if not user:
        return {}
    password = _secret("DHIS2_PASSWORD")
    if password is None:
        if not call.asks:
            raise UsageError(
                "There is no password for DHIS2.", hint="Set DHIS2_PASSWORD or DHIS2_PASSWORD_FILE in the environment."
            )
        password = click.prompt(sentences.ask_password(user), hide_input=True, err=True)
        # A run that goes on apart can ask nobody.
        click.get_current_context().meta["secrets"] = {"DHIS2_PASSWORD": password}
    return basic_credentials(user, password)


def _secret(name: str) -> str | None:
    """Return what the environment has for a name, or the file that `NAME_FILE` names there; None for neither."""
    file = os.environ.get(f"{name}_FILE")
    if name in os.environ or not file:
        return os.environ.get(name)
    try:
        return Path(file).read_text().rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"Cannot read {file}, which {name}_FILE names: {why}.") from None
