"""The Python that is run inside CHAP's containers: each question a program that prints its answer as JSON."""

PYTHON = ("sh", "-c", 'exec "$(command -v python || command -v python3)" -c "$@"', "sh")

VERSION = """
import importlib.metadata
print(importlib.metadata.version("chap_core"))
"""

REQUESTS = """
import json, os, signal, sys, urllib.error, urllib.parse, urllib.request
given = json.load(sys.stdin)
class SameServer(urllib.request.HTTPRedirectHandler):
    # A login is for the server that it is for, and for no other that this one leads to.
    def redirect_request(self, request, answer, code, message, headers, target):
        before, after = urllib.parse.urlsplit(request.full_url), urllib.parse.urlsplit(target)
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            return None
        return super().redirect_request(request, answer, code, message, headers, target)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), SameServer)
def too_late(*_):
    raise TimeoutError("the answer does not come to its end")
signal.signal(signal.SIGALRM, too_late)
answers = []
for one in given:
    headers = dict(one.get("headers") or {})
    token = os.environ.get("CHAP_API_TOKEN")
    if token and one.get("own"):
        headers["Authorization"] = "Bearer " + token
    request = urllib.request.Request(one["url"], headers=headers)
    # A server that sends a letter now and then never exceeds the other limit.
    signal.setitimer(signal.ITIMER_REAL, 2 * one["timeout"])
    try:
        try:
            answer = opener.open(request, timeout=one["timeout"])
        except urllib.error.HTTPError as error:
            answer = error
        body = answer.read(1 << 22).decode("utf-8", "replace")
        answers.append({"status": answer.status, "body": body})
    except Exception as error:
        reason = getattr(error, "reason", error)
        answers.append({"status": 0, "body": str(getattr(reason, "strerror", None) or reason).lower()})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
import importlib.metadata
try:
    version = importlib.metadata.version("chap_core")
except Exception:
    version = ""
print(json.dumps({"version": version, "answers": answers}))
"""

# The models of the running code, held against the database it uses: the only marker of the schema that can be
# trusted, since CHAP swallows a failed migration and most installations have no alembic_version at all.
SCHEMA = """
import json, os, sys
out = sys.stdout
sys.stdout = sys.stderr
import chap_core.database.database
import sqlalchemy
from sqlmodel import SQLModel
engine = sqlalchemy.create_engine(os.environ["CHAP_DATABASE_URL"])
there = sqlalchemy.inspect(engine)
tables = set(there.get_table_names())
missing_tables, missing_columns = [], []
for name, table in sorted(SQLModel.metadata.tables.items()):
    if name not in tables:
        missing_tables.append(name)
        continue
    found = {column["name"] for column in there.get_columns(name)}
    missing_columns += [name + "." + column.name for column in table.columns if column.name not in found]
current, heads = [], []
if "alembic_version" in tables:
    with engine.connect() as connection:
        current = [row[0] for row in connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))]
try:
    import logging
    logging.disable(logging.CRITICAL)
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    package = os.path.dirname(os.path.abspath(chap_core.__file__))
    for folder in (os.getcwd(), os.path.dirname(package), package):
        path = os.path.join(folder, "alembic.ini")
        if os.path.exists(path):
            configuration = Config(path)
            configuration.set_main_option("script_location", os.path.join(folder, "alembic"))
            heads = list(ScriptDirectory.from_config(configuration).get_heads())
            break
except Exception as error:
    print(error, file=sys.stderr)
print(json.dumps({"missing_tables": missing_tables, "missing_columns": missing_columns,
                  "alembic": current, "heads": heads}), file=out)
"""

ACTIVE_JOBS = """
import json, os, sys
out = sys.stdout
sys.stdout = sys.stderr
from celery import Celery
from chap_core.rest_api import celery_tasks
application = next(value for value in vars(celery_tasks).values() if isinstance(value, Celery))
# The answers are collected until so many workers have answered, or the time is over.
limit = int(os.environ["CHAP_WORKERS"]) or None
answers = application.control.inspect(timeout=3, limit=limit).active() or {}
jobs = [task["id"] for tasks in answers.values() for task in tasks]
print(json.dumps({"workers": sorted(answers), "jobs": jobs}), file=out)
"""

MODEL_COLUMNS = """
import json, sys
out = sys.stdout
sys.stdout = sys.stderr
import chap_core.database.database
from sqlmodel import SQLModel
print(json.dumps([name + "." + column.name for name, table in SQLModel.metadata.tables.items()
                  for column in table.columns]), file=out)
"""

# Importing chap_core takes seconds: two questions that need it are asked by one program.
_TOGETHER = """
import io, json, sys
real, answers = sys.stdout, []
for source in {sources!r}:
    sys.stdout = said = io.StringIO()
    try:
        exec(source, {{}})
        answers.append([said.getvalue(), ""])
    except Exception as error:
        answers.append(["", type(error).__name__ + ": " + str(error).partition("\\n")[0]])
print(json.dumps(answers), file=real)
"""


def together(*sources: str) -> str:
    """Return one program that asks several questions; each answer comes with what went wrong, or nothing."""
    return _TOGETHER.format(sources=sources)
