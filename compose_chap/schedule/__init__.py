"""The work of every night, week and month: what it is, its timers, and the sheet to get everything back without us.

The doors are `plan`, `work` and `timers`. The command `schedule` calls them.
"""
