"""The longer SQL statements of `server`."""

from __future__ import annotations

TABLES = """
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
"""

# psql runs each row of the first query as a statement: a single round trip for all tables.
COUNT = (
    "SELECT format('SELECT json_build_array(%L, count(*)) FROM %I.%I', n.nspname || '.' || c.relname,"
    " n.nspname, c.relname)" + TABLES + "ORDER BY 1 \\gexec\n"
)

# The same, and how many rows were written by transactions numbered `since` or later.
NEWER = (
    "SELECT format('SELECT json_build_array(%L, count(*), count(*) FILTER (WHERE age(xmin) <= age(''{since}''::xid)))"
    " FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)" + TABLES + "ORDER BY 1 \\gexec\n"
)

# What neither CREATE DATABASE … TEMPLATE nor pg_dump copies: settings, privileges, comment, connection limit.
# A setting that is a list of names is stored as it was written (see variable_is_guc_list_quote in PostgreSQL), and each
# name of it is quoted again: the owner of the database, whom nobody need trust, chose it, and we run this.
CARRY = r"""
WITH old AS (SELECT * FROM pg_database WHERE datname = {old}), setting AS (
  SELECT coalesce(r.rolname, '') AS role, split_part(entry, '=', 1) AS name,
         substr(entry, strpos(entry, '=') + 1) AS value
  FROM pg_db_role_setting s JOIN old ON s.setdatabase = old.oid LEFT JOIN pg_roles r ON r.oid = s.setrole,
       unnest(s.setconfig) AS entry)
SELECT CASE WHEN role = '' THEN format('ALTER DATABASE %I SET ', {new}::text)
            ELSE format('ALTER ROLE %I IN DATABASE %I SET ', role, {new}::text) END
       || quote_ident(name) || ' = '
       || CASE WHEN name IN ('search_path', 'temp_tablespaces', 'session_preload_libraries',
                             'local_preload_libraries', 'shared_preload_libraries', 'unix_socket_directories')
          AND value <> ''
          THEN (SELECT string_agg(quote_literal(CASE WHEN item LIKE '"%' THEN replace(trim(item, '"'), '""', '"')
                                                ELSE trim(item) END), ', ' ORDER BY at)
                FROM regexp_matches(value, '"(?:[^"]|"")*"|[^",]*[^", ][^",]*', 'g')
                     WITH ORDINALITY AS matched (items, at), unnest(items) AS item)
          ELSE quote_literal(value) END
FROM setting
UNION ALL SELECT format('COMMENT ON DATABASE %I IS %L', {new}::text, shobj_description(oid, 'pg_database'))
FROM old WHERE shobj_description(oid, 'pg_database') IS NOT NULL
UNION ALL SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', {new}::text, datconnlimit)
FROM old WHERE datconnlimit >= 0
UNION ALL SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {new}::text) FROM old WHERE datacl IS NOT NULL
UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, {new}::text,
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM old, aclexplode(old.datacl) AS a
\gexec
"""
