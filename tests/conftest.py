"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell starts what it puts in the background with Ctrl-C ignored, and nohup ignores a lost terminal too: what a test
# starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
