"""What must survive a crash: atomic files, the lock, the journal of a run, the records of ended runs.

The doors are `run_records`, `lock` and `durable`. Whatever changes a stack writes here first.
"""
