"""Reversible changes of a stack: forward step by step, each written to the journal first, and the way back.

Start at `forward.run`; `undo.undo` is the way back. Upgrade, rollback, restore and recover call them. `data` is
what a change does to the data, `run` is what the journal stores.
"""
