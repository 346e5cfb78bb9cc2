"""Repair known faults of a new version in the data: before it starts, and after it has migrated them.

The previous data are kept before any repair, so that a way back has nothing to undo here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from compose_chap.check import Check
from compose_chap.postgres.database_schema import MARK_TABLE
from compose_chap.postgres.server import Server
from compose_chap.transaction.data import value_query
from compose_chap.transaction.data.values import Column

# Faults by the names of their checks.
OLD_MARK, PREDICTION_LENGTH = "old_mark", "prediction_length"
TARGET_COLUMN, HALF_MIGRATED = "target_column", "half_migrated"

_SPECIFICATIONS = "public.backtestspecification"
# What v2.4.0 makes at its start, with a default for the column that its own migration does not fill: so rows can come
# in. As the specifications of CHAP itself before v2.4.0, those of these backtests are about disease cases.
_MAKE_SPECIFICATIONS = f"""
DO $$
BEGIN
  IF to_regclass('{_SPECIFICATIONS}') IS NULL AND to_regclass('public.dataset') IS NOT NULL THEN
    CREATE TABLE {_SPECIFICATIONS} (
      n_periods integer NOT NULL, n_splits integer NOT NULL, stride integer NOT NULL, n_retrain integer NOT NULL,
      future_weather_provider varchar NOT NULL,
      id serial PRIMARY KEY,
      dataset_id integer NOT NULL REFERENCES public.dataset (id) ON DELETE CASCADE,
      target_column varchar NOT NULL DEFAULT 'disease_cases',
      org_units json,
      CONSTRAINT uq_backtestspecification_params UNIQUE
        (dataset_id, target_column, n_periods, n_splits, stride, n_retrain, future_weather_provider));
    EXECUTE format('ALTER TABLE {_SPECIFICATIONS} OWNER TO %I',
      (SELECT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename = 'dataset'));
  END IF;
END $$;
"""
_NO_DEFAULT = f"ALTER TABLE {_SPECIFICATIONS} ALTER COLUMN target_column DROP DEFAULT;"

# A backtest that could not be saved has left its specification. The migration makes the same one of the backtests that
# are there, and ends on it. Those that it does not make stay.
_DROP_LEFTOVERS = f"""
DO $$
BEGIN
  IF to_regclass('{_SPECIFICATIONS}') IS NOT NULL AND EXISTS (
    SELECT FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = 'backtest' AND column_name = 'n_periods') THEN
    DELETE FROM {_SPECIFICATIONS} s WHERE EXISTS (
      SELECT FROM public.backtest b
      WHERE (b.dataset_id, b.n_periods, b.n_splits, b.stride, b.n_retrain, b.future_weather_provider)
          = (s.dataset_id, s.n_periods, s.n_splits, s.stride, s.n_retrain, s.future_weather_provider));
  END IF;
END $$;
"""

_BEFORE = {
    OLD_MARK: f"DROP TABLE IF EXISTS {MARK_TABLE};",
    TARGET_COLUMN: _MAKE_SPECIFICATIONS,
    HALF_MIGRATED: _DROP_LEFTOVERS,
}
_MENDED = {
    OLD_MARK: "Alembic's old mark was dropped before the new version started.",
    TARGET_COLUMN: "The table backtestspecification was made before the new version started, so that it could move the"
    " parameters of the backtests into it.",
    HALF_MIGRATED: "What failed backtests had left in backtestspecification was removed before the new version"
    " started.",
}


def before_start(server: Server, database: str, names: Collection[str]) -> None:
    """Repair data before the new version migrates them. Raise DatabaseError when that fails."""
    if sql := "\n".join(statement for name, statement in _BEFORE.items() if name in names):
        server.command(sql, database)


def lost_values(server: Server, database: str, names: Collection[str]) -> Mapping[str, Column]:
    """Return the values of data that are not migrated yet which `after_migration` puts back. Raise DatabaseError."""
    return value_query.renamed(server, database) if PREDICTION_LENGTH in names else {}


def after_migration(
    server: Server, database: str, names: Collection[str], remembered: Mapping[str, Column]
) -> list[Check]:
    """Repair what the migration did to the data, and return the repairs as checks.

    Raise DatabaseError when that fails.
    """
    if TARGET_COLUMN in names and "target_column" in server.columns(database).get(_SPECIFICATIONS, ()):
        server.command(_NO_DEFAULT, database)
    checks = [Check("repaired", "ok", message) for name, message in _MENDED.items() if name in names]
    if remembered and value_query.give_back(server, database, remembered):
        labels = ", ".join(sorted(label.removeprefix("public.") for label in remembered))
        checks.append(Check("repaired", "ok", f"The values that the migration lost were put back: {labels}."))
    return checks
