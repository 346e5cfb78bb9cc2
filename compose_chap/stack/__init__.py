"""The stack as it is now: which one the operator means, and what CHAP says of itself.

The doors are `observe.find_stack` and `chap.Chap`. Everything above asks here, and nothing here changes a stack.
"""
