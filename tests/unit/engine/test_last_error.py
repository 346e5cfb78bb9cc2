"""The reason why CHAP ended, read from logs as they really look."""

from __future__ import annotations

import pytest

from compose_chap.engine.last_error import last_error

_FRAMES = """Traceback (most recent call last):
  File "/app/.venv/lib/python3.13/site-packages/sqlalchemy/engine/base.py", line 1967, in _exec_single_context
    self.dialect.do_execute(
    ~~~~~~~~~~~~~~~~~~~~~~~^
        cursor, str_statement, effective_parameters, context
        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    )
    ^
"""

PLAIN = (
    "INFO  [alembic.runtime.migration] Running upgrade  -> a7b8\n"
    + _FRAMES
    + "ValueError: Invalid model configuration file /app/config/configured_models/local.yaml: 1 validation error\n"
)
INVALID = PLAIN.splitlines()[-1]

CHAINED = (
    "INFO  [alembic.runtime.migration] Running upgrade b4c5d6e7f8a3 -> c5d6e7f8a3b4, add_alert_policy\n"
    + _FRAMES
    + """psycopg2.errors.DuplicateTable: relation "predictionsetup" already exists


The above exception was the direct cause of the following exception:

"""
    + _FRAMES
    + """sqlalchemy.exc.ProgrammingError: (psycopg2.errors.DuplicateTable) relation "predictionsetup" already exists

[SQL:
CREATE TABLE predictionsetup (
\tid SERIAL NOT NULL,
\tname VARCHAR DEFAULT 'ERROR: not this',
\tPRIMARY KEY (id)
)

]
[parameters: {'password': 'hunter2'}]
(Background on this error at: https://sqlalche.me/e/20/f405)
"""
)
DUPLICATE = (
    'sqlalchemy.exc.ProgrammingError: (psycopg2.errors.DuplicateTable) relation "predictionsetup" already exists'
)

UNKNOWN = "FAILED: Can't locate revision identified by 'de7478f3ff6d'"

BOOTING = "[2026-11-20 10:00:00 +0000] [7] [ERROR] Exception in worker process\n"
GUNICORN = """[2026-11-20 10:00:00 +0000] [7] [INFO] Worker exiting (pid: 7)
[2026-11-20 10:00:01 +0000] [1] [ERROR] Worker (pid:7) exited with code 3
[2026-11-20 10:00:01 +0000] [1] [ERROR] Shutting down: Master
[2026-11-20 10:00:01 +0000] [1] [ERROR] Reason: Worker failed to boot.
"""

HALTED = """
During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/.venv/bin/gunicorn", line 10, in <module>
    sys.exit(run())
gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>
"""

ASSERTION = """Traceback (most recent call last):
  File "/app/gunicorn.conf.py", line 9, in on_starting
    create_db_and_tables()
  File "/app/chap_core/external/github.py", line 44, in fetch
    assert content != "", "x" if False else ""
AssertionError
"""

GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/app/x.py", line 1, in main
  |     run()
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/y.py", line 2, in task
    |     connect()
    | ConnectionRefusedError: [Errno 111] Connection refused
    +------------------------------------
"""

# A failed fetch is passed over; what ended the API comes after it.
PASSED_OVER = (
    _FRAMES
    + "urllib.error.URLError: <urlopen error timed out>\n"
    + "ERROR:chap_core.database.seed:Could not seed the model x. It is passed over.\n"
    + "INFO:     Started server process [1]\n"
    + _FRAMES
    + "sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server failed\n"
    + "\tIs the server running on that host?\n"
)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (PLAIN, INVALID),
        (CHAINED, DUPLICATE),
        (CHAINED.replace("\n", "\r\n"), DUPLICATE),
        ("\n".join(f"2026-11-20T10:00:00.123456789Z {line}" for line in CHAINED.split("\n")), DUPLICATE),
        (CHAINED + GUNICORN, DUPLICATE),
        (BOOTING + CHAINED + GUNICORN + HALTED, DUPLICATE),
        ("\x1b[31m" + CHAINED.replace("sqlalchemy.exc", "\x1b[1;35msqlalchemy.exc\x1b[0m"), DUPLICATE),
        # The end of the log is lost: within the statement, the error itself, and the frames.
        (CHAINED.partition("\tname VARCHAR")[0], DUPLICATE),
        (CHAINED[: CHAINED.rindex("relation") + 12], DUPLICATE[: DUPLICATE.index("relation") + 12]),
        (_FRAMES + '  File "/app/chap_core/x.py", line 3, in f\n    connect(ur', "connect(ur"),
        (ASSERTION, 'AssertionError: assert content != "", "x" if False else ""'),
        (GROUP, "ConnectionRefusedError: [Errno 111] Connection refused"),
        ("ERROR:    " + PLAIN.partition("\n")[2] + "\nERROR:    Application startup failed. Exiting.\n", INVALID),
        (PASSED_OVER, "sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) connection to server failed"),
        # No traceback at all.
        (f"INFO hello\n{UNKNOWN}\nINFO bye\n", UNKNOWN),
        ("INFO hello\nexec /app/run: no such file or directory\n\n", "exec /app/run: no such file or directory"),
        ("exec /bin/sh: exec format error", "exec /bin/sh: exec format error"),
        (GUNICORN, GUNICORN.splitlines()[-1]),
        ("KeyError: 'CHAP_DATABASE_URL'\n", "KeyError: 'CHAP_DATABASE_URL'"),
        ("", ""),
        ("\r\n \n", ""),
    ],
)
def test_the_reason_is_the_last_error_of_the_log(log: str, reason: str) -> None:
    assert last_error(log) == reason


def test_a_log_of_blanks_is_read_in_no_time() -> None:
    # Nothing is measured: what takes the square of this takes hours.
    blanks = (" " * 2000 + "\n") * 2000
    assert last_error(f"[SQL: SELECT 1\n{blanks * 8}ValueError: x\n") == "ValueError: x"


def test_a_reason_is_a_single_readable_line() -> None:
    result = last_error("ValueError: " + "word " * 200)
    assert len(result) == 300 and result.endswith("...") and "\n" not in result
