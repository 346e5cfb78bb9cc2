"""The stack as it is now: which stack the operator means, and the state of CHAP in it.

Start at `observe.find_stack` and `chap.Chap`. Nothing here changes a stack.
"""
