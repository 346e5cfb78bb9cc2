"""One module for each thing that can be done with a stack: status, upgrade, rehearse, rollback, recover, prune.

Each observes, plans and executes, and returns typed data. The commands in `cli` call them; nothing here prints or asks.
"""
