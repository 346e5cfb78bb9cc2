"""What upstream's releases require of an operator, each checked on this stack: no note where nothing is to do.

The facts come from comparing chap-core's and docker-dhis2-core's files from release to release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compose_chap.check import Check
from compose_chap.image import release_key
from compose_chap.model import Role, Stack
from compose_chap.stack.releases import reported_version

_Release = tuple[int, int, int]


def between(stack: Stack, now: str, target: str) -> list[Check]:
    """Return the notes for an upgrade from one release to another, as warnings."""
    current, wanted = release_key(now), release_key(target)
    if not current or not wanted:
        return []
    checks = [check for release, notes in _NOTES if current < release <= wanted for check in notes(stack)]
    if any(current < release <= wanted for release in _MOVES_COLUMNS):
        checks += _columns_move()
    return [*checks, *_number_of_another(target)]


def _number_of_another(target: str) -> Iterator[Check]:
    if (says := reported_version(target)) != target.removeprefix("v"):
        message = (
            f"{target} reports version {says} (CHAP did not change the number). After the upgrade, {says} is the"
            " expected version."
        )
        yield Check("note_number", "warn", message)


def _worker_commands_of_before_1_1(stack: Stack) -> Iterator[Check]:
    for service in (*stack.of(Role.WORKER), *stack.of(Role.API)):
        if "rest_api_src" in " ".join(service.containers[0].command):
            message = f"The command of {service.name} names chap_core.rest_api_src, which v1.1.0 has renamed."
            yield Check("note_command", "warn", message, "Take the command out of the Compose file, or name rest_api.")


def _passwords_that_break_urls(stack: Stack) -> Iterator[Check]:
    # Since v1.1.5 the Compose file puts the password into a URL, unescaped.
    password = stack.database.containers[0].environment.get("POSTGRES_PASSWORD", "")
    if set(password) & set("@:/#%?"):
        message = "The database's password has a character that breaks CHAP_DATABASE_URL (one of @ : / # % ?)."
        yield Check("note_password", "warn", message, "Escape it in the URL, or choose another password.")


def _interface_of_before_1_3(stack: Stack) -> Iterator[Check]:
    if stack.of(Role.DHIS2):
        message = "v1.3.0 removed /version and /is-compatible: an old Modeling App in DHIS2 no longer finds CHAP."
        yield Check("note_modeling_app", "warn", message, "Update the Modeling App in DHIS2 to its newest version.")


def _models_of_their_own(stack: Stack) -> Iterator[Check]:
    if not stack.of(Role.MODEL):
        message = "From v2.0.0 on EWARS is a separate service, and this project has no model service."
        yield Check("note_models", "warn", message, "If you use it, add compose.ewars.yml to the files.")


def _token_is_looked_at(stack: Stack) -> Iterator[Check]:
    # Releases up to v2.1.0 ignore the token; later ones refuse requests without it.
    token = stack.api.containers[0].environment.get("CHAP_API_TOKEN")
    silent = [
        service.name
        for service in stack.of(Role.MODEL)
        if not service.containers[0].environment.get("SERVICEKIT_REGISTRATION_KEY")
    ]
    if token and silent:
        message = f"CHAP_API_TOKEN now takes effect, and {', '.join(silent)} has no SERVICEKIT_REGISTRATION_KEY."
        yield Check("note_token", "warn", message, "Give the model services the token, or they cannot register.")
    if token and stack.of(Role.DHIS2):
        message = "CHAP_API_TOKEN now takes effect: DHIS2's route must send it."
        yield Check(
            "note_route_token", "warn", message, "Add the header Authorization: Bearer … to the route in DHIS2."
        )


def _columns_move() -> Iterator[Check]:
    message = "This release renames, moves or drops columns: older code cannot read the data that it makes."
    yield Check(
        "note_columns", "warn", message, "Going back later means going back to the old data, too: docker chap rollback"
    )


_NOTES: tuple[tuple[_Release, Callable[[Stack], Iterator[Check]]], ...] = (
    ((1, 1, 0), _worker_commands_of_before_1_1),
    ((1, 1, 5), _passwords_that_break_urls),
    ((1, 3, 0), _interface_of_before_1_3),
    ((2, 0, 0), _models_of_their_own),
    # The first release after v2.1.0, whatever its number is.
    ((2, 1, 1), _token_is_looked_at),
)

# Releases whose migration removes columns: lengths of predictions, parameters of backtests.
_MOVES_COLUMNS: tuple[_Release, ...] = ((2, 2, 0), (2, 3, 0))
