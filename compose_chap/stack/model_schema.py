"""The tables that the models of a CHAP image need. They never change, so they are cached per image id.

A script reads them in a throwaway container of the image, without a network and with nothing of production. So an
upgrade can read those of its target while CHAP still serves, and importing chap_core adds no downtime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from compose_chap.engine import throwaway
from compose_chap.engine.throwaway import Recipe
from compose_chap.engine.world import World
from compose_chap.errors import EngineError, StateError
from compose_chap.model import Stack
from compose_chap.postgres.database_schema import Column, ForeignKey
from compose_chap.reading import Value
from compose_chap.records.files import cache
from compose_chap.stack import chap_scripts
from compose_chap.stack.chap import python

_ANSWER = "What CHAP's models want"


@dataclass(frozen=True)
class ModelSchema:
    """The tables that the models of one image need.

    `tables` has the columns of each table. `foreign_keys` are those that the models declare NOT NULL. `chain` are
    the revisions of Alembic, oldest first, and `heads` the last ones; both are empty where the image has none.
    """

    version: str
    tables: Mapping[str, tuple[Column, ...]]
    foreign_keys: tuple[ForeignKey, ...]
    chain: tuple[str, ...]
    heads: tuple[str, ...]

    @property
    def never_null(self) -> tuple[tuple[str, str], ...]:
        """Table and name of every column that may not be NULL."""
        return tuple(
            (name, column.name) for name, columns in self.tables.items() for column in columns if not column.nullable
        )

    @property
    def column_names(self) -> frozenset[str]:
        """Every column, as `public.table.column`."""
        return frozenset(f"public.{name}.{column.name}" for name, columns in self.tables.items() for column in columns)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Value) -> ModelSchema:
        """Parse the output of `to_json` or of CHAP's container. Raise `data`'s error for anything else."""
        tables = {
            name: tuple(
                Column(
                    column.at("name").filled(),
                    column.at("type").filled(),
                    nullable=column.at("nullable").flag(),
                    default=column.at("default").flag(),
                )
                for column in columns.items()
            )
            for name, columns in data.at("tables").members().items()
        }
        if not tables:
            raise data.wrong("is empty", "tables")
        keys = ("table", "column", "to_table", "to_column")
        return cls(
            version=data.at("version").text(),
            tables=tables,
            foreign_keys=tuple(
                ForeignKey(*(entry.at(key).filled() for key in keys)) for entry in data.at("foreign_keys").items()
            ),
            chain=data.at("chain").texts(),
            heads=data.at("heads").texts(),
        )


def of_image(world: World, image: str, container: str = "") -> ModelSchema:
    """Return the schema of an image's models, from the cache if possible.

    `image` is its id. `container` is a running container of it, used when the image itself is gone. Raise
    EngineError when neither answers, as with CHAP before v1.0.17.
    """

    def ask() -> ModelSchema:
        if known := _remembered(world, image):
            return known
        answer, seconds = _ask(world, image, container)
        cache.remember(_name(image), {"image": image, "seconds": seconds, **answer.to_json()}, world.environment)
        return answer

    return world.engine.once(("models", image), ask)


def of_stack(world: World, stack: Stack) -> ModelSchema:
    """Return the schema of the models of a stack's API, running or not. Raise EngineError as `of_image` does."""
    api = stack.api.containers[0]
    return of_image(world, api.image_id, api.id if api.running else "")


def import_seconds(world: World, stack: Stack) -> float:
    """Return how many seconds of a processor importing the models of a stack's API took here, 0 for unknown."""
    image = stack.api.containers[0].image_id
    with suppress(StateError):
        record = cache.recall(_name(image), world.environment)
        if record and record.at("image").text() == image and (seconds := record.get("seconds")):
            return seconds.number()
    return 0.0


def _remembered(world: World, image: str) -> ModelSchema | None:
    record = cache.recall(_name(image), world.environment)
    with suppress(StateError):
        if record and record.at("image").text() == image:
            return ModelSchema.from_json(record)
    return None


def _name(image: str) -> str:
    # The script is part of the key: another version of this tool may ask for something else.
    return "models-" + hashlib.sha256(f"{image}\n{chap_scripts.MODELS}".encode()).hexdigest()[:32]


def _ask(world: World, image: str, container: str) -> tuple[ModelSchema, float]:
    """Return the answer, and how many seconds of a processor it took: what else the server did does not count."""
    throwaway.remove_abandoned(world.engine)
    recipe = Recipe(image, {}, entrypoint=chap_scripts.PYTHON, command=[chap_scripts.STAY])
    try:
        with throwaway.throwaway(world.engine, recipe) as identity:
            return _ask_in(world, identity)
    except EngineError:
        if not container:
            raise
        return _ask_in(world, container)


def _ask_in(world: World, container: str) -> tuple[ModelSchema, float]:
    answer = python(world.engine, container, chap_scripts.MODELS, _ANSWER)
    seconds = answer.get("seconds")
    return ModelSchema.from_json(answer), seconds.number() if seconds else 0.0
