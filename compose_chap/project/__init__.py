"""A Compose project's files: read as Compose reads them, edited without changing another byte, or checked out by Git.

Start at `compose_files.load`, `pin.edits` and `checkout`. Only this folder imports `ruamel.yaml`.
"""
