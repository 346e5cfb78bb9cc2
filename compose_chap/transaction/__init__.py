"""The one change of a stack that can be undone: forward step by step, each in the journal first, and the way back.

The door is `forward.run`; `undo.undo` is the way back. Upgrade, rollback, restore and recover call them. `data` is
what a change does to the data, `run` what the journal holds of it.
"""
