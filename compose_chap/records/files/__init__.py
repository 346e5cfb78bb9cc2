"""Files that survive a crash and obey nobody else: atomic writing, folders of our own, disks that must be mounted.

The doors are `durable` and `own_folder`. Nothing here knows what the files say; `records` and the folders above it do.
"""
