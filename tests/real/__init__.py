"""The main job on real releases of CHAP: `make test-real`. It needs PyPI, some 3 GB of disk and half an hour."""
