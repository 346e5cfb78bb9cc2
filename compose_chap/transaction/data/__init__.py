"""The data of a change: how the previous ones are kept and come back, and what a migration made of the values.

Start at `previous_data.previous_data_of` and `value_query`. `forward`, `undo` and `evidence` call them.
"""
