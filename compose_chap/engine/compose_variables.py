"""The variables that Compose itself obeys, and what they are for our own calls of it.

Compose takes them from the shell and from every `.env` alike. Our calls say all they mean with options; a variable
that would make them do more, or write something else than what is read, is given here, which beats both places.

Left as they are: COMPOSE_FILE, COMPOSE_PATH_SEPARATOR, COMPOSE_PROJECT_NAME and COMPOSE_PROFILES, which our options
beat; COMPOSE_DISABLE_ENV_FILE, COMPOSE_CONVERT_WINDOWS_PATHS, COMPOSE_COMPATIBILITY and COMPOSE_EXPERIMENTAL*, by
which the operator's own `docker compose` reads the same project; COMPOSE_PARALLEL_LIMIT and COMPOSE_BAKE, which
change how fast something is done, and not what.
"""

from __future__ import annotations

from collections.abc import Mapping

FOR_OUR_CALLS: Mapping[str, str | None] = {
    # Containers of the project that no file names are nobody's business here: they are not removed, nor spoken of.
    "COMPOSE_REMOVE_ORPHANS": "false",
    "COMPOSE_IGNORE_ORPHANS": "true",
    # The env files are those that the stack was started with. Where it had none, a shell's are another project's.
    "COMPOSE_ENV_FILES": None,
    # What it prints is read by a program.
    "COMPOSE_ANSI": "never",
    "COMPOSE_MENU": "false",
    "COMPOSE_PROGRESS": "plain",
    "COMPOSE_STATUS_STDOUT": "false",
}
