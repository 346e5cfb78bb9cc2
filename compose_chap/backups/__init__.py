"""Backups: taken, proven, listed, described, and the parts of a backup besides the dump.

Start at `backup.take`, `catalogue` and `proof`. Everything that makes or reads a backup calls them.
"""
