"""Everything that is checked before an upgrade begins: named checks, each ok, warn, fail or skipped.

Start at `preflight.examine`. `subject` caches each fact. No check changes anything.
The commands `check` and `upgrade` call it.
"""
