"""How old data are by Alembic's mark in them, held against the revisions that the code here knows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from compose_chap.engine.engine import Engine
from compose_chap.image import release_key
from compose_chap.model import Container
from compose_chap.postgres.server import Server
from compose_chap.stack.chap_scripts import PYTHON
from compose_chap.transaction.value_query import OLD_MARK, PREDICTION_LENGTH

TABLE = "public.alembic_version"

# What v2.2.0 and newer take a database without a mark for, and the first revision after it.
_STAMPED, _COUNTED = "a7b8c9d0e1f2", "b8c9d0e1f2a3"
# The chain of CHAP by the release that each part came with, for an API that is down.
_KNOWN = (
    ("1.1.0", ("fe59a33965ed",)),
    ("1.1.1", ("ff2b1bbb8418",)),
    ("1.1.5", ("a1b2c3d4e5f6",)),
    ("2.0.0", ("b2c3d4e5f6a7", "c3d4e5f6a7b8", "d4e5f6a7b8c9", "e5f6a7b8c9d0", "f6a7b8c9d0e1")),
    ("2.1.0", (_STAMPED,)),
    ("2.2.0", (_COUNTED, "c9d0e1f2a3b4", "d0e1f2a3b4c5", "e1f2a3b4c5d6")),
    ("2.3.0", ("f2a3b4c5d6e1",)),
    ("2.3.1", ("a3b4c5d6e7f2",)),
    ("2.4.0", ("b4c5d6e7f8a3", "c5d6e7f8a3b4", "d6e7f8a3b4c5", "e7f8a3b4c5d6")),
    ("2.5.0", ("de7478f3ff6d",)),
)
_NEWEST = "2.5.1"

_PROGRAM = """
import importlib.util, json, logging, os
logging.disable(logging.CRITICAL)
from alembic.config import Config
from alembic.script import ScriptDirectory
package = os.path.dirname(importlib.util.find_spec("chap_core").origin)
chain = []
for folder in (os.getcwd(), os.path.dirname(package), package):
    path = os.path.join(folder, "alembic.ini")
    if os.path.exists(path):
        configuration = Config(path)
        configuration.set_main_option("script_location", os.path.join(folder, "alembic"))
        chain = [one.revision for one in ScriptDirectory.from_config(configuration).walk_revisions()][::-1]
        break
print(json.dumps(chain))
"""


def of_database(server: Server, database: str) -> tuple[str, ...]:
    """Return the marks in a database, none where it has no table for them. Raise DatabaseError."""
    if "version_num" not in server.columns(database).get(TABLE, ()):
        return ()
    rows = server.query(f"SELECT version_num FROM {TABLE} ORDER BY 1 LIMIT 10", database)
    return tuple(str(row[0]) for row in rows)


def chain_of(engine: Engine, api: Container, version: str) -> tuple[str, ...]:
    """Return the revisions that the code of an API knows, the oldest first; none where nothing says them.

    An API that is down is taken by its `version`, as far as that release is known.
    """
    if api.running:
        finished = engine.run(api.id, [*PYTHON, _PROGRAM])
        try:
            return tuple(str(one) for one in json.loads(finished.stdout.strip().splitlines()[-1]))
        except (IndexError, ValueError, TypeError):
            pass
    here, newest = release_key(version), release_key(_NEWEST)
    if not here or not newest or here > newest:
        return ()
    return tuple(one for first, part in _KNOWN if (release_key(first) or here) <= here for one in part)


def unknown(marks: Sequence[str], chain: Sequence[str]) -> str:
    """Return a mark that a newer CHAP has left, empty where there is none or the code does not say what it knows."""
    return next((mark for mark in marks if chain and mark not in chain), "")


def says_older(marks: Sequence[str], chain: Sequence[str]) -> bool:
    """Whether data are surely not newer than the code: up to v2.1.0 CHAP leaves no mark that can be relied on."""
    return _COUNTED in chain and not unknown(marks, chain)


def repairs(marks: Sequence[str], chain: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be mended, by name, where code from v2.2.0 on migrates data from before it."""
    if _COUNTED not in chain or _STAMPED not in chain:
        return ()
    places = [chain.index(mark) for mark in marks if mark in chain]
    if places and max(places) > chain.index(_STAMPED):
        return ()
    old = any(place < chain.index(_STAMPED) for place in places)
    return (OLD_MARK, PREDICTION_LENGTH) if old else (PREDICTION_LENGTH,)
