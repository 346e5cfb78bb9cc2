"""What must survive a crash: atomic files, the lock, the journal of a run, the records of ended runs.

Start at `run_records`, `lock` and `durable`. Every change of a stack is written here first.
"""
