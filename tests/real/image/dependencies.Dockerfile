# What the releases of chap-core need from PyPI: one layer for all of them. The network is reached with this machine's
# own settings, which are lent as secrets and not kept.
ARG BASE
FROM ${BASE}
RUN --mount=type=bind,target=/context --mount=type=secret,id=pip,target=/run/pip.conf --mount=type=secret,id=ca,target=/run/ca.pem \
    python3 -m venv --without-pip /app/.venv \
 && PIP_CONFIG_FILE=/run/pip.conf PIP_CERT=/run/ca.pem /app/.venv/bin/python /context/pip.whl/pip install \
    --no-cache-dir --disable-pip-version-check --progress-bar off --require-hashes -r /context/requirements.txt
LABEL docker-chap.test=1
