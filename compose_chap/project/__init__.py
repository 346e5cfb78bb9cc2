"""A Compose project's files: read as Compose reads them, edited without another byte changed, or checked out by Git.

The doors are `compose_files.load`, `pin.edits` and `checkout`. The door of `ruamel.yaml`.
"""
