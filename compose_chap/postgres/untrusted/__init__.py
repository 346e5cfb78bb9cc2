"""Dumps that nobody vouches for: loaded in a jail, searched for what does not belong there, restored without power.

The doors are `jail`, `sandbox.Quarantine` and `unexpected`. `backups`, `restore`, `rehearse` and `verify` call them.
"""
