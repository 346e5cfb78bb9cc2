"""Objects that no database of CHAP has: how to find them, and which of them a restore may bring back.

CHAP's database has tables, rows and what belongs to them. Anything else might run code later or on another server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from compose_chap.errors import DatabaseError, DumpError
from compose_chap.postgres import dump_format
from compose_chap.postgres.dump_format import Contents
from compose_chap.postgres.server import Server, identifier, literal
from compose_chap.postgres.untrusted.sandbox import Quarantine

# Each with the kind that pg_dump gives it. Objects of an extension come with the extension and are not listed;
# PL/pgSQL is everywhere, so objects that claim to belong to it are listed.
_OBJECTS = r"""
WITH own AS (SELECT oid FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema')),
object (class, oid, description) AS (
-- An aggregate is made of functions, and has no language of its own.
SELECT 'pg_proc'::regclass, p.oid, CASE WHEN l.lanpltrusted OR p.prokind = 'a' THEN '' ELSE 'UNTRUSTED ' END
       || CASE p.prokind WHEN 'p' THEN 'PROCEDURE ' WHEN 'a' THEN 'AGGREGATE ' ELSE 'FUNCTION ' END || p.proname
  FROM pg_proc p JOIN own ON own.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  -- Those that PostgreSQL itself makes with a range type are no functions that anybody wrote.
  WHERE NOT EXISTS (SELECT 1 FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'i')
UNION ALL SELECT 'pg_class'::regclass, c.oid,
       CASE c.relkind WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW ' ELSE 'FOREIGN TABLE ' END || c.relname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relkind IN ('v', 'm', 'f')
UNION ALL SELECT 'pg_trigger'::regclass, oid, 'TRIGGER ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 'EVENT TRIGGER ' || evtname FROM pg_event_trigger
UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, 'RULE ' || r.rulename FROM pg_rewrite r
  JOIN pg_class c ON c.oid = r.ev_class JOIN own ON own.oid = c.relnamespace WHERE r.rulename <> '_RETURN'
UNION ALL SELECT 'pg_policy'::regclass, oid, 'POLICY ' || polname FROM pg_policy
UNION ALL SELECT 'pg_class'::regclass, c.oid, 'ROW SECURITY ' || c.relname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relrowsecurity
UNION ALL SELECT 'pg_extension'::regclass, oid, 'EXTENSION ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL SELECT 'pg_language'::regclass, oid, 'PROCEDURAL LANGUAGE ' || lanname FROM pg_language
  WHERE lanispl AND lanname <> 'plpgsql'
UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 'FOREIGN DATA WRAPPER ' || fdwname
  FROM pg_foreign_data_wrapper
UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 'SERVER ' || srvname FROM pg_foreign_server
UNION ALL SELECT 'pg_publication'::regclass, oid, 'PUBLICATION ' || pubname FROM pg_publication
UNION ALL SELECT 'pg_subscription'::regclass, s.oid, 'SUBSCRIPTION ' || subname FROM pg_subscription s
  JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()
UNION ALL SELECT 'pg_operator'::regclass, o.oid, 'OPERATOR ' || oprname FROM pg_operator o
  JOIN own ON own.oid = o.oprnamespace
UNION ALL SELECT 'pg_opclass'::regclass, o.oid, 'OPERATOR CLASS ' || opcname FROM pg_opclass o
  JOIN own ON own.oid = o.opcnamespace
UNION ALL SELECT 'pg_opfamily'::regclass, o.oid, 'OPERATOR FAMILY ' || opfname FROM pg_opfamily o
  JOIN own ON own.oid = o.opfnamespace
UNION ALL SELECT 'pg_am'::regclass, oid, 'ACCESS METHOD ' || amname FROM pg_am WHERE oid >= 16384
UNION ALL SELECT 'pg_type'::regclass, t.oid,
       CASE t.typtype WHEN 'd' THEN 'DOMAIN ' WHEN 'r' THEN 'RANGE TYPE ' ELSE 'SHELL TYPE ' END || typname
  FROM pg_type t JOIN own ON own.oid = t.typnamespace
  -- A base type that is no array is made by a superuser, out of functions.
  WHERE t.typtype IN ('d', 'r', 'p')
        OR (t.typtype = 'b' AND NOT EXISTS (SELECT 1 FROM pg_type e WHERE e.typarray = t.oid))
UNION ALL SELECT 'pg_cast'::regclass, oid, 'CAST ' || castsource::regtype || ' to ' || casttarget::regtype
  FROM pg_cast c WHERE oid >= 16384
  AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE classid = 'pg_cast'::regclass AND objid = c.oid AND deptype = 'i')
UNION ALL SELECT 'pg_transform'::regclass, oid, 'TRANSFORM ' || trftype::regtype FROM pg_transform
UNION ALL SELECT 'pg_collation'::regclass, c.oid, 'COLLATION ' || collname FROM pg_collation c
  JOIN own ON own.oid = c.collnamespace
UNION ALL SELECT 'pg_conversion'::regclass, c.oid, 'CONVERSION ' || conname FROM pg_conversion c
  JOIN own ON own.oid = c.connamespace
UNION ALL SELECT 'pg_ts_config'::regclass, c.oid, 'TEXT SEARCH CONFIGURATION ' || cfgname FROM pg_ts_config c
  JOIN own ON own.oid = c.cfgnamespace
UNION ALL SELECT 'pg_ts_dict'::regclass, d.oid, 'TEXT SEARCH DICTIONARY ' || dictname FROM pg_ts_dict d
  JOIN own ON own.oid = d.dictnamespace
UNION ALL SELECT 'pg_ts_parser'::regclass, p.oid, 'TEXT SEARCH PARSER ' || prsname FROM pg_ts_parser p
  JOIN own ON own.oid = p.prsnamespace
UNION ALL SELECT 'pg_ts_template'::regclass, t.oid, 'TEXT SEARCH TEMPLATE ' || tmplname FROM pg_ts_template t
  JOIN own ON own.oid = t.tmplnamespace
UNION ALL SELECT 'pg_largeobject'::regclass, oid, 'LARGE OBJECT ' || oid FROM pg_largeobject_metadata
UNION ALL SELECT 'pg_seclabel'::regclass, NULL, 'SECURITY LABEL ' || provider FROM pg_seclabel
UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 'STATISTICS ' || stxname FROM pg_statistic_ext
UNION ALL SELECT 'pg_class'::regclass, c.oid, 'TYPE ' || c.relname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relkind = 'c'
-- The rows of such a table are gone after a crash.
UNION ALL SELECT 'pg_class'::regclass, c.oid,
       CASE relkind WHEN 'S' THEN 'UNLOGGED SEQUENCE ' ELSE 'UNLOGGED TABLE ' END || c.relname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'p', 'S')
UNION ALL SELECT 'pg_class'::regclass, c.oid, 'TABLE WITH A PARENT ' || c.relname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace JOIN pg_inherits ON inhrelid = c.oid
  WHERE c.relkind = 'r'
UNION ALL SELECT 'pg_class'::regclass, c.oid, 'PARTITIONED TABLE ' || c.relname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relkind = 'p'
UNION ALL SELECT 'pg_class'::regclass, c.oid, 'GENERATED COLUMN ' || c.relname || '.' || a.attname
  FROM pg_class c JOIN own ON own.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE a.attgenerated <> '' AND NOT a.attisdropped
UNION ALL SELECT 'pg_class'::regclass, id,
       'EXPRESSION ' || f.proname || '() in ' || location || ' ' || t.relname
  FROM (
  SELECT 'a default of' AS location, adrelid AS id, adbin::text AS tree FROM pg_attrdef
  UNION ALL SELECT 'a check of', conrelid, conbin::text FROM pg_constraint WHERE conbin IS NOT NULL AND conrelid <> 0
  UNION ALL SELECT 'the index', indexrelid, coalesce(indexprs::text, '') || coalesce(indpred::text, '') FROM pg_index
    WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
  UNION ALL SELECT 'the partitions of', partrelid, partexprs::text FROM pg_partitioned_table WHERE partexprs IS NOT NULL
  ) AS expressions CROSS JOIN LATERAL regexp_matches(tree, ':(?:funcid|aggfnoid|winfnoid) (\d+)', 'g') AS called
  JOIN pg_proc f ON f.oid = called[1]::oid
  JOIN pg_class t ON t.oid = id JOIN own ON own.oid = t.relnamespace
  WHERE NOT (f.pronamespace = 'pg_catalog'::regnamespace AND f.oid < 16384 AND (
    f.proname IN ('nextval', 'now', 'lower', 'upper', 'length', 'char_length', 'character_length', 'timezone')
    -- A cast of PostgreSQL's own is one too, and no call that anybody wrote.
    OR EXISTS (SELECT 1 FROM pg_cast c WHERE c.castfunc = f.oid AND c.oid < 16384)))
)
SELECT DISTINCT description FROM object WHERE NOT EXISTS (
  SELECT 1 FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname <> 'plpgsql'
        AND d.classid = object.class AND d.objid = object.oid)
ORDER BY 1 LIMIT 1000
"""


# Tables that the catalog has lost: their row type is there, but the table is not. Nothing else in the catalog shows
# the loss, and pg_dump does not notice it.
_LOST = """
SELECT n.nspname || '.' || t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typrelid <> 0 AND NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid)
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""


def objects(server: Server, database: str) -> list[str]:
    """Return the objects that no database of CHAP has, each by kind and name."""
    return inspect(server, database)[0]


def inspect(server: Server, database: str) -> tuple[list[str], list[str]]:
    """Return the same as `objects`, and the tables that the catalog of the database has lost."""
    names, lost = server.answers(_OBJECTS, _LOST, database=database)
    return [name for (name,) in names], [name for (name,) in lost]


def refuse(names: Sequence[str], *, trust: bool) -> None:
    """Raise DumpError for a dump that holds these objects (kind and name), unless it is trusted."""
    if names and not trust:
        raise DumpError(
            f"The dump holds things that CHAP does not have: {_some(names)}.",
            hint="If you know where it comes from and want it: --trust",
        )


def backup_warning(names: Sequence[str]) -> str:
    """Return the warning about a backup of a database with these objects; empty for none."""
    if not names:
        return ""
    warning = f"It holds things that CHAP does not have: {_some(names)}. A restore needs --trust."
    if beyond := [name for name in names if dump_format.is_beyond_trust(name)]:
        warning += f" Even then {_some(beyond)} can be restored by hand only, with pg_restore, by a superuser."
    return warning


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


_NAME = r'("(?:[^"]|"")+"|\w+)'
_EXTENSION = re.compile(rf"^CREATE EXTENSION IF NOT EXISTS {_NAME} WITH SCHEMA {_NAME};$", re.MULTILINE)


def make_extensions(quarantine: Quarantine, path: str, contents: Contents, database: str, role: str) -> Contents:
    """Create the extensions of a trusted archive, and return its contents without them.

    The administrator creates them, because most extensions need that. It gives the dump no power: only the names come
    from it, the code is the server's own, and the administrator owns it. `role` may fill their tables.
    Raise DumpError when this server cannot create one.
    """
    wanted = [entry for entry in contents.entries if entry.kind == "EXTENSION" and not entry.belongs_to_server]
    if not wanted:
        return contents
    schemas = {entry.name: entry for entry in contents.entries if entry.kind == "SCHEMA"}
    made = {entry.line for entry in contents.entries if entry.called.startswith("COMMENT - EXTENSION ")}
    made |= {entry.line for entry in wanted}
    for quoted in _EXTENSION.findall(quarantine.sql(path, "".join(entry.line + "\n" for entry in wanted))):
        name, schema = (part[1:-1].replace('""', '"') if part.startswith('"') else part for part in quoted)
        statements = []
        # A schema that the list does not have is created by the extension.
        if schema in schemas and not schemas[schema].belongs_to_server:
            made.add(schemas[schema].line)
            statements.append(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)} AUTHORIZATION {identifier(role)};")
        statements.append(f"CREATE EXTENSION IF NOT EXISTS {identifier(name)} SCHEMA {identifier(schema)} CASCADE;")
        statements.append(_LET_FILL.format(name=literal(name), role=literal(role)))
        try:
            quarantine.server.command("\n".join(statements), database)
        except DatabaseError as error:
            raise DumpError(
                f"The dump needs the extension {name}, and this server cannot make it: {error.message}",
                hint="Use the PostgreSQL image that the dump was made with.",
            ) from None
    return replace(contents, entries=tuple(entry for entry in contents.entries if entry.line not in made))


# A dump includes rows that somebody added to a table of an extension.
_LET_FILL = """
SELECT format('GRANT ALL ON %s TO %I', filled::regclass, {role})
  FROM pg_extension, unnest(extconfig) AS filled WHERE extname = {name} \\gexec
"""
