"""Backups: taken, proven, listed, described, and what lies in one beside the dump.

The doors are `backup.take`, `catalogue` and `proof`. Everything that keeps or reads a backup calls them.
"""
