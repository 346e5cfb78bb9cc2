"""What is known of a run: the change that it makes, what it learned, how the stack was before, what it keeps.

`change` and `facts` are what the journal holds; `kept` gives names to what is kept and says what of it may go.
"""
