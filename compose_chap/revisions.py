"""The revisions of CHAP's Alembic chain, as far as they are known, and what marks say of how old data are. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from compose_chap.image import release_key

# What v2.2.0 and newer take a database without a mark for, and the first revision after it: from there marks count.
STAMPED, COUNTED = "a7b8c9d0e1f2", "b8c9d0e1f2a3"
# The last one of v2.2.0, and that of v2.3.0, which moves the parameters of backtests into a table of their own.
OF_2_2_0, SPECIFICATIONS = "e1f2a3b4c5d6", "f2a3b4c5d6e1"
# That of v2.4.0 which wants every specification to name its target.
TARGET_COLUMN = "e7f8a3b4c5d6"
# backtest.chap_version, which CHAP adds by itself: a database can do without the revision.
CHAP_VERSION = "a3b4c5d6e7f2"

# The chain by the release that each part came with.
_CHAIN = (
    ("1.1.0", ("fe59a33965ed",)),
    ("1.1.1", ("ff2b1bbb8418",)),
    ("1.1.5", ("a1b2c3d4e5f6",)),
    ("2.0.0", ("b2c3d4e5f6a7", "c3d4e5f6a7b8", "d4e5f6a7b8c9", "e5f6a7b8c9d0", "f6a7b8c9d0e1")),
    ("2.1.0", (STAMPED,)),
    ("2.2.0", (COUNTED, "c9d0e1f2a3b4", "d0e1f2a3b4c5", OF_2_2_0)),
    ("2.3.0", (SPECIFICATIONS,)),
    ("2.3.1", (CHAP_VERSION,)),
    ("2.4.0", ("b4c5d6e7f8a3", "c5d6e7f8a3b4", "d6e7f8a3b4c5", TARGET_COLUMN)),
    ("2.5.0", ("de7478f3ff6d",)),
)
# The newest release whose chain is known.
NEWEST = "2.5.1"


def of_release(version: str) -> tuple[str, ...]:
    """Return the revisions that a release has, the oldest first; none for one that this tool does not know."""
    key, newest = release_key(version), release_key(NEWEST)
    if not key or not newest or key > newest:
        return ()
    return tuple(revision for first, part in _CHAIN if (release_key(first) or key) <= key for revision in part)


# Those before STAMPED: v2.2.0 and newer would migrate from there, and fail on what exists already.
OLD = of_release("2.0.0")


def unknown(marks: Sequence[str], chain: Sequence[str]) -> str:
    """Return a mark that a newer CHAP has left, empty where there is none or the code does not say what it knows."""
    return next((mark for mark in marks if chain and mark not in chain), "")


def surely_older(marks: Sequence[str], chain: Sequence[str]) -> bool:
    """Whether data are surely not newer than the code: up to v2.1.0 CHAP leaves no mark that can be relied on."""
    return COUNTED in chain and not unknown(marks, chain)


def reached(marks: Sequence[str], chain: Sequence[str]) -> int:
    """Return how many revisions of a chain data with these marks have seen; -1: none that this chain knows."""
    return max((chain.index(mark) + 1 for mark in marks if mark in chain), default=-1)
