"""Run from the source tree: `python3 -m compose_chap status`."""

import sys

from compose_chap.plugin import main

sys.exit(main())
