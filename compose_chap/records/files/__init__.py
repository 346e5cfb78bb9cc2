"""Files that survive a crash and that no other user can plant: atomic writing, own folders, disks that are mounted.

The doors are `durable` and `own_folder`. Nothing here knows what the files say; `records` and the folders above it do.
"""
