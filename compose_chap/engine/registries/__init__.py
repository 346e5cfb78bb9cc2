"""Registries of images: which tags and digests they have, asked with the credentials that Docker keeps.

The door is `registry.Registry`. The checks of a target and `versions` call it.
"""
