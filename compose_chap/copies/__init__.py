"""Copies of backups in another place, kept by restic: encrypted, deduplicated, and read back from there.

The doors are `send`, `catalogue` and `fetch`. The commands `copy`, `copies`, `restore` and `verify` call them. The door
of restic.
"""
