"""What an operator sees: results as text or as one JSON document, progress, failures, metrics.

Everything here returns strings or writes to a stream that is handed in. The commands in `cli` call it.
"""
