"""What must survive a crash: the lock, the journal of a run, the records of ended runs.

Start at `run_records` and `lock`; `files` has how they are written. Every change of a stack is written here first.
"""
