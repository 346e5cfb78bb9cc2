"""Migrate before the port is bound, then serve, as the images of CHAP do."""

import logging
import sys

bind = "0.0.0.0:8000"
workers = 1
worker_class = "uvicorn.workers.UvicornWorker"
worker_tmp_dir = "/tmp"
timeout = 120
capture_output = True
# It would be made in the home folder, and nothing can be written there.
control_socket_disable = True
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s [%(process)d] [%(levelname)s] [%(name)s] %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain", "stream": sys.stdout}},
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        name: {"level": "INFO", "handlers": ["console"], "propagate": False}
        for name in ("gunicorn.error", "gunicorn.access")
    },
}


def on_starting(server):
    from chap_core.database.database import create_db_and_tables

    log = logging.getLogger("gunicorn.error")
    log.info("Database migration and initialization starting...")
    create_db_and_tables()
    log.info("Database migration and initialization complete.")
