"""Programs on this machine: run to their end, with streams of bytes, or in the background.

Start at `process`. Nothing here knows of Docker or CHAP.
"""
