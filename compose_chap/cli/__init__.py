"""The command line: what the `commands` share (`call`, `options`, `app`).

Start at `app.main`; `plugin` calls it. Only this folder prints, asks and exits, and imports `click`.
Nothing about CHAP, Docker or PostgreSQL is decided here: a command calls the folders below and shows what they return.
"""
