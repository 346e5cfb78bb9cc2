"""version_templates_and_configurations"""

import hashlib
import json

import sqlalchemy as sa
from alembic import op
from existing import add_column, has_unique

revision = "b8c9d0e1f2a3"
down_revision = "a7b8c9d0e1f2"


def upgrade() -> None:
    add_column("modeltemplatedb", sa.Column("source_digest", sa.String()))
    op.execute("UPDATE modeltemplatedb SET source_digest = NULL WHERE source_digest = ''")
    op.execute("UPDATE modeltemplatedb SET version = 'legacy-unversioned' WHERE version IS NULL")
    op.alter_column("modeltemplatedb", "version", nullable=False)
    add_column("configuredmodeldb", sa.Column("configuration_digest", sa.String()))
    for table in ("modeltemplatedb", "configuredmodeldb"):
        add_column(table, sa.Column("is_live", sa.Boolean()))
        op.execute(f"UPDATE {table} SET is_live = true")
        op.alter_column(table, "is_live", nullable=False)
    _fill_digests()
    op.alter_column("configuredmodeldb", "configuration_digest", nullable=False)
    _make_unique("modeltemplatedb", "uq_modeltemplatedb_name_version", ["name", "version"])
    _make_unique(
        "configuredmodeldb",
        "uq_configuredmodeldb_template_name_digest",
        ["model_template_id", "name", "configuration_digest"],
    )


def _fill_digests() -> None:
    # The same digest as the models work out, or the next seed makes every configuration a second time.
    connection = op.get_bind()
    options = ("user_option_values", "additional_continuous_covariates")
    for row in connection.execute(sa.text(f"SELECT id, {', '.join(options)} FROM configuredmodeldb")).all():
        chosen = {options[0]: row[1] or {}, options[1]: row[2] or []}
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
        update = sa.text("UPDATE configuredmodeldb SET configuration_digest = :digest WHERE id = :id")
        connection.execute(update, {"digest": digest, "id": row.id})


def _make_unique(table: str, name: str, columns: list[str]) -> None:
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_name_key")
    if not has_unique(table, name):
        op.create_unique_constraint(name, table, columns)
