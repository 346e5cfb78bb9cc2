"""Migrate before the port is bound, then serve."""

import sys

bind = "0.0.0.0:8000"
workers = 1
worker_class = "uvicorn.workers.UvicornWorker"
worker_tmp_dir = "/tmp"
control_socket_disable = True
graceful_timeout = 5
preload_app = True
accesslog = None


def on_starting(server):
    from chap_core.database.database import create_db_and_tables
    from chap_core.release import RELEASE

    if RELEASE.vice == "exits":
        print("RuntimeError: this build cannot start", file=sys.stderr)
        sys.exit(1)
    create_db_and_tables()
