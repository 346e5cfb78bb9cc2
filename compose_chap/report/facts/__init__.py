"""The facts of a report, and how they follow from the trail and from what is kept: all of it pure.

`gather` hands in what it read; the sections show what comes out.
"""
