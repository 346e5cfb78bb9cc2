"""A module for each operation on a stack: status, upgrade, rehearse, rollback, recover, prune and more.

Each observes, plans and executes, and returns typed data. The commands in `cli` call them; nothing here prints or asks.
"""
