"""Back up, upgrade and restore a running CHAP stack: the Docker CLI plugin `docker chap`."""

__version__ = "0.1.0"
