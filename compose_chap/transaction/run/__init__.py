"""A run: the change that it makes, the facts it recorded, the stack before it, and what it keeps.

`change` and `facts` are stored in the journal; `kept` names what is kept and decides what may be dropped.
"""
