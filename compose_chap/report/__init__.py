"""The audit report of a stack: what runs, what was done, what was proven, and whether promises were kept.

The doors are `gather`, which reads the facts, and `page`, which writes them down. The command `report` calls them, and
nothing else loads this folder: it brings a library that draws.
"""
