"""The steps of a run, as its journal names them. The way back depends on which steps have begun."""

from __future__ import annotations

from enum import Enum


class Step(str, Enum):
    """A step of a run. The values are in the journals of all versions: a name may change, a value never."""

    PULL = "pull"
    BACKUP = "backup"
    CHECKOUT = "checkout"
    BUILD = "build"
    READ_DUMP = "read dump"
    RESTORE_BESIDE = "restore beside"
    CHECK_BESIDE = "check beside"
    STOP = "stop"
    KEEP = "keep"
    SWAP = "swap"
    REWRITE = "rewrite"
    START_API = "start api"
    VERIFY_API = "verify api"
    START_WORKER = "start worker"
    VERIFY = "verify"
    FINISH = "finish"
    GO_BACK = "go back"

    def __str__(self) -> str:
        return self.value
