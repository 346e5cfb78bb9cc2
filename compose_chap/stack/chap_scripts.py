"""Python scripts that run inside CHAP's containers; each prints its answer as JSON."""

PYTHON = ("sh", "-c", 'exec "$(command -v python || command -v python3)" -c "$@"', "sh")

VERSION = """
import importlib.metadata
print(importlib.metadata.version("chap_core"))
"""

# It prints an empty line when all requests are on their way, and then the answers. Each millisecond before that is one
# that an operator waits, so it loads nothing that it can do without: not urllib.request, and no TLS, which none needs.
REQUESTS = """
import json, os, sys, threading, time
sys.modules["ssl"] = None
import http.client
from urllib.parse import urljoin, urlsplit
wanted = json.load(sys.stdin)
answers = [{"status": 0, "body": "the answer does not come to its end"} for _ in wanted]
sent = [threading.Event() for _ in wanted]
def get(number, url, headers, timeout):
    for _ in range(10):
        server = urlsplit(url)
        connection = http.client.HTTPConnection(server.netloc, timeout=timeout)
        connection.request("GET", server._replace(scheme="", netloc="", fragment="").geturl() or "/", headers=headers)
        sent[number].set()
        answer = connection.getresponse()
        target = urljoin(url, answer.headers.get("Location", ""))
        # A login is only for this server, not for another that it redirects to.
        if answer.status // 100 != 3 or target == url or urlsplit(target)[:2] != server[:2]:
            break
        url = target
    return {"status": answer.status, "body": answer.read(1 << 22).decode("utf-8", "replace")}
def ask(number, item):
    headers = dict(item.get("headers") or {})
    token = os.environ.get("CHAP_API_TOKEN")
    if token and item.get("own"):
        headers["Authorization"] = "Bearer " + token
    try:
        answers[number] = get(number, item["url"], headers, item["timeout"])
    except Exception as error:
        answers[number] = {"status": 0, "body": str(getattr(error, "strerror", None) or error).lower()}
    sent[number].set()
def begin(number, item):
    thread = threading.Thread(target=ask, args=(number, item), daemon=True)
    thread.start()
    return thread, time.monotonic() + 2 * item["timeout"]
def wait(thread, end):
    # A server that sends a byte now and then never exceeds the other limit.
    thread.join(max(0, end - time.monotonic()))
# The first alone: a server that is busy with another one might not answer it. The others side by side.
if wanted:
    wait(*begin(0, wanted[0]))
running = [begin(number, item) for number, item in enumerate(wanted) if number]
for event in sent:
    event.wait(1)
print(flush=True)
import importlib.metadata
try:
    version = importlib.metadata.version("chap_core")
except Exception:
    version = ""
for thread, end in running:
    wait(thread, end)
print(json.dumps({"version": version, "answers": answers}), flush=True)
os._exit(0)
"""

# Whether anything listens, asked again and again for so long: as little as possible, for CHAP starts meanwhile.
FIRST_ANSWER = """
import http.client, json, os, time
end, silent, status = time.monotonic() + float(os.environ["CHAP_PATIENCE"]), False, 0
while True:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["CHAP_API"]), timeout=5)
        connection.request("GET", "/health")
        status = connection.getresponse().status
        break
    except Exception as error:
        silent = True
        if not isinstance(error, ConnectionError) or time.monotonic() >= end:
            break
        time.sleep(0.05)
print(json.dumps({"answers": bool(status), "silent": silent}))
"""

# Keeps a container running, so that scripts can run in it.
STAY = "import signal; signal.pause()"

# The tables that the models of the installed code need, and its Alembic revisions. No database is used: the URL is
# set only because some releases need one at import.
MODELS = """
import json, logging, os, sys, time
out = sys.stdout
sys.stdout = sys.stderr
os.environ.setdefault("CHAP_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
import importlib.metadata
import chap_core.database.database
from sqlalchemy.dialects import postgresql
from sqlmodel import SQLModel
dialect = postgresql.dialect()
def spelled(type_):
    try:
        return str(type_.compile(dialect=dialect))
    except Exception:
        return type(type_).__name__
tables, keys = {}, []
for name, table in sorted(SQLModel.metadata.tables.items()):
    tables[name] = [{"name": column.name, "type": spelled(column.type), "nullable": bool(column.nullable),
                     "default": column.server_default is not None} for column in table.columns]
    keys += [{"table": name, "column": column.name, "to_table": key.target_fullname.rpartition(".")[0],
              "to_column": key.target_fullname.rpartition(".")[2]}
             for column in table.columns if not column.nullable for key in column.foreign_keys
             if len(key.constraint.elements) == 1]
chain, heads = [], []
try:
    logging.disable(logging.CRITICAL)
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    package = os.path.dirname(os.path.abspath(chap_core.__file__))
    for folder in (os.getcwd(), os.path.dirname(package), package):
        path = os.path.join(folder, "alembic.ini")
        if os.path.exists(path):
            configuration = Config(path)
            configuration.set_main_option("script_location", os.path.join(folder, "alembic"))
            scripts = ScriptDirectory.from_config(configuration)
            chain = [script.revision for script in scripts.walk_revisions()][::-1]
            heads = list(scripts.get_heads())
            break
except Exception as error:
    print(error, file=sys.stderr)
    chain, heads = [], []
try:
    version = importlib.metadata.version("chap_core")
except Exception:
    version = ""
print(json.dumps({"version": version, "tables": tables, "foreign_keys": sorted(keys, key=str),
                  "chain": chain, "heads": heads, "seconds": time.process_time()}), file=out)
"""

# CHAP's Celery application, as `application`.
_CELERY = """
import json, os, sys, time
out = sys.stdout
sys.stdout = sys.stderr
from celery import Celery
broker = os.environ.get("CELERY_BROKER")
if broker:
    # Configured like CHAP's own application, whose import takes seconds.
    application = Celery("worker", broker=broker)
    application.conf.update(task_serializer="pickle", accept_content=["pickle", "json"],
                            broker_transport_options={"socket_connect_timeout": 2})
else:
    from chap_core.rest_api import celery_tasks
    application = next(value for value in vars(celery_tasks).values() if isinstance(value, Celery))
"""

ACTIVE_JOBS = (
    _CELERY
    + """
# Collect answers until this many workers have answered, or the timeout.
limit = int(os.environ["CHAP_WORKERS"]) or None
answers = application.control.inspect(timeout=3, limit=limit).active() or {}
jobs = [task["id"] for tasks in answers.values() for task in tasks]
print(json.dumps({"workers": sorted(answers), "jobs": jobs}), file=out)
"""
)

# Tells workers to take no more jobs, and prints those that surely have none.
IDLE = (
    """
import signal
signal.alarm(5)
"""
    + _CELERY
    + """
names = os.environ["CHAP_WORKERS"].split()
asked = {"destination": names, "timeout": 1, "limit": len(names)}
inspect = application.control.inspect(**asked)
taken = inspect.active_queues() or {}
idle = set(taken)
for queue in {queue["name"] for queues in taken.values() for queue in queues}:
    # Who does not confirm it may still ask the broker for a job after this.
    replies = application.control.cancel_consumer(queue, reply=True, **asked) or []
    idle &= {name for reply in replies for name, answer in reply.items() if "ok" in answer}
if taken:
    # A worker still waits, up to a second, for the job that it asked the broker for last. If it were killed then, a job
    # that comes at that moment would be lost. So the broker ends all such waiting; who takes jobs asks again at once.
    with application.connection_for_read() as connection:
        broker = connection.default_channel.client
        for client in broker.client_list():
            if client["cmd"] == "brpop":
                broker.client_unblock(client["id"])
# A job goes from those that a worker holds to those that it runs, so those that it holds are asked for first.
for question in (inspect.active_queues, inspect.scheduled, inspect.reserved, inspect.active):
    answers = (idle and question()) or {}
    idle &= {name for name, jobs in answers.items() if not jobs}
print(json.dumps({"idle": sorted(idle)}), file=out)
"""
)

# A worker that is still starting does not get a question, so it is asked again and again.
PING = (
    _CELERY
    + """
wanted, end = int(os.environ["CHAP_WORKERS"]), time.monotonic() + float(os.environ["CHAP_PATIENCE"])
while True:
    answering = len(application.control.ping(timeout=0.3, limit=wanted or None))
    if answering >= wanted or time.monotonic() >= end:
        break
print(json.dumps({"workers": answering}), file=out)
"""
)
