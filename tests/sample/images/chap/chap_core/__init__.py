"""A sample CHAP for the tests of docker chap: the real one's interface and vices, none of its models."""

import importlib.metadata
import sys

__version__ = importlib.metadata.version("chap_core")

# The real package is noisy on stderr when it is imported; a reader of its output must cope with that.
print("/app/chap_core/geometry.py:41: SyntaxWarning: invalid escape sequence '\\d'", file=sys.stderr)
