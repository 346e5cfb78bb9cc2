"""Everything that is looked at before an upgrade begins: named checks, each ok, warn, fail or skipped.

The door is `preflight.examine`. `subject` asks each fact once. No check changes anything.
The commands `check` and `upgrade` call it.
"""
