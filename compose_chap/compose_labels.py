"""The labels that Docker Compose gives to what it creates."""

from __future__ import annotations

PREFIX = "com.docker.compose."

PROJECT = PREFIX + "project"
SERVICE = PREFIX + "service"
# The project's folder, its Compose files and its env files; several are joined with commas.
DIRECTORY = PROJECT + ".working_dir"
CONFIG_FILES = PROJECT + ".config_files"
ENV_FILES = PROJECT + ".environment_file"
# "True" for a container of `docker compose run`.
RUN_ONCE = PREFIX + "oneoff"
# A hash of the service's configuration, and the dependencies that were started along.
CONFIG_HASH = PREFIX + "config-hash"
DEPENDS_ON = PREFIX + "depends_on"
