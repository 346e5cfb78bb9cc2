# A release of CHAP out of its wheel. The wheel has no alembic.ini, alembic/, gunicorn.conf.py or config/: those are
# stand-ins. Everything but the last two steps is the same for all releases.
ARG BASE
FROM ${BASE} AS app
RUN groupadd -g 1000 chap && useradd -u 1000 -g chap -m chap \
 && mkdir -p /app/config/configured_models /data/logs /data/runs && chown -R chap:chap /data \
 && echo /app >/app/.venv/lib/python3.13/site-packages/chap_core.pth
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet \
    CHAP_RUNS_DIR=/data/runs CHAP_LOGS_DIR=/data/logs MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
COPY gunicorn.conf.py alembic.ini /app/
COPY default.yaml /app/config/configured_models/
COPY alembic /app/alembic
WORKDIR /app
USER chap
EXPOSE 8000
CMD ["gunicorn", "-c", "gunicorn.conf.py", "chap_core.rest_api.app:app"]
LABEL docker-chap.test=1

FROM app AS release
ARG RELEASE
COPY releases/${RELEASE} /app/
USER root
RUN python -m compileall -q /app/chap_core
USER chap

FROM release AS chap-core

FROM release AS chap-worker
LABEL docker-chap.worker=1
