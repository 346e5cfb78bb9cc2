"""The words an operator types: one module for each command, and what the commands share (`call`, `app`).

The door is `app.main`; `plugin` calls it. The only folder that prints, asks and exits, and the door of `click`.
Nothing of CHAP, Docker or PostgreSQL is decided here: a command asks the folders below and shows what they return.
"""
