"""Every way `docker chap` can fail.

ChapError
├── UsageError          the arguments on the command line do not fit            exit 2
├── EngineError         Docker or Compose is missing, too old or refuses
│   └── CommandFailed   a process ran and ended with a failure
├── StackError          no CHAP stack, several, or one that is not as expected
│   └── SeveralStacks   nothing says which of several is meant
├── ComposeFileError    a Compose file or env file that cannot be edited safely
├── DatabaseError       PostgreSQL refuses, or is not there
├── DumpError           a dump or backup that is missing, damaged or hostile
├── CopyError           a copy in another place that cannot be made or read
├── ScheduleError      a part of the work of a night, week or month failed
├── RegistryError       the registry does not answer, or lacks an image
├── StateError          the records beside the Compose file cannot be used
│   ├── Locked          another run works on this stack                         exit 5
│   └── Interrupted     an earlier run was cut off                              exit 5
├── RolledBack          it failed, and everything is as it was                  exit 3
├── NeedsPerson         it failed, and so did the way back                      exit 4
├── Bug                 an unexpected exception                                 exit 1
└── Cancelled           the operator stopped it; nothing is left half done      exit 130
    └── Declined        the operator was asked, and said no
"""

from __future__ import annotations

from typing import Any


class ChapError(Exception):
    """A failure that an operator can act on: what failed, the state now, the command to run next.

    `code` is a stable word for scripts, `details` are further fields of the JSON document. `exit_status` is that of
    the process: 1 means refused or failed, and CHAP itself was not changed.
    """

    code = "failed"
    exit_status = 1

    def __init__(self, message: str, *, state: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.state = state
        self.hint = hint
        self.details: dict[str, Any] = {}


class UsageError(ChapError):
    """The arguments on the command line do not fit together."""

    code = "usage"
    exit_status = 2


class EngineError(ChapError):
    """Docker or Compose is missing, too old, or refuses to work."""

    code = "engine"


class CommandFailed(EngineError):
    """A process ended with a failure."""

    code = "command"


class StackError(ChapError):
    """There is no CHAP stack, there are several, or a part of it is missing."""

    code = "stack"


class SeveralStacks(StackError):
    """There are several CHAP stacks, and nothing says which is meant."""


class ComposeFileError(ChapError):
    """A Compose file or env file cannot be read or edited safely; `path` and `line` (from 1) say where."""

    code = "compose-file"

    def __init__(self, message: str, *, path: str = "", line: int = 0, hint: str = "") -> None:
        location = f"{path}:{line}: " if path and line else f"{path}: " if path else ""
        super().__init__(location + message, hint=hint)
        self.path = path
        self.line = line


class DatabaseError(ChapError):
    """PostgreSQL is not there, or refused a request."""

    code = "database"


class StuckSessions(DatabaseError):
    """Another session in a database does not end, so the database can be neither copied nor renamed."""


class DumpError(ChapError):
    """A dump or a backup is missing, damaged, of an unknown kind, or has something that no dump of CHAP has."""

    code = "dump"

    def __init__(
        self, message: str, *, state: str = "", hint: str = "Use another backup. To list them: docker chap backups"
    ) -> None:
        super().__init__(message, state=state, hint=hint)


class CopyError(ChapError):
    """A copy of a backup in another place cannot be made, read or removed."""

    code = "copy"


class ScheduleError(ChapError):
    """A part of the work of a night, week or month failed."""

    code = "schedule"


class RegistryError(ChapError):
    """The registry does not answer, or does not have the image."""

    code = "registry"


class StateError(ChapError):
    """The records that `docker chap` keeps beside the Compose file cannot be read or written."""

    code = "state"


class Locked(StateError):
    """Another run of `docker chap` works on this stack."""

    code = "locked"
    exit_status = 5


class Interrupted(StateError):
    """An earlier run was cut off; `docker chap recover` comes first."""

    code = "interrupted"
    exit_status = 5


class RolledBack(ChapError):
    """The operation failed, and files, images and data are verified to be as they were."""

    code = "rolled-back"
    exit_status = 3


class NeedsPerson(ChapError):
    """The operation failed and the way back failed too; the message says what state each part is in."""

    code = "needs-person"
    exit_status = 4


class Bug(ChapError):
    """An unexpected exception, as the JSON document reports it. It is never raised."""

    code = "bug"


class Cancelled(ChapError):
    """The operator stopped the operation, and it left nothing half done."""

    code = "cancelled"
    exit_status = 130


class Declined(Cancelled):
    """The operator was asked before anything was changed, and said no: an answer, not a failure."""

    code = "declined"
