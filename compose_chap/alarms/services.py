"""Mail, ntfy, Telegram, Slack, Teams and more than a hundred others, by Apprise. The only door of `apprise`.

It is loaded when a message is sent or an address is checked, and never before: that takes seconds.
"""

from __future__ import annotations

import difflib
import io
import logging
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from compose_chap import timeline
from compose_chap.alarms import addresses
from compose_chap.alarms.wording import AlarmText
from compose_chap.errors import StateError
from compose_chap.records import lock
from compose_chap.redact import redact

# Where to unpack: in memory, where the disk is full. An alarm is needed most then.
_ROOM = (None, "/dev/shm")
_PACKED = "apprise.zip"
_PREFIX = "docker-chap-alarms-"
_HOUR = 3600
_SECONDS = 15.0  # for each answer of a service
_LONGEST = 90.0  # seconds for a message, however the answers drip


class Services:
    """Apprise, loaded."""

    def __init__(self, apprise: Any) -> None:
        self._apprise = apprise
        apprise.URLBase.socket_connect_timeout = apprise.URLBase.socket_read_timeout = _SECONDS
        # It sees no plugins of others, and leaves no file behind.
        self._asset = apprise.AppriseAsset(
            app_id="docker-chap", app_desc="docker chap", storage_mode="memory", async_mode=False
        )

    def fault(self, address: str) -> str:
        """Return why nothing can be sent to an address, empty when that can be tried. Nothing is sent."""
        with _listening() as lines:
            if self._service(address) is not None:
                return ""
        kind = addresses.kind_of(address)
        if kind in ("http", "https"):
            return f"no service is known at {addresses.shown(address)}; for a webhook of your own: json{kind[4:]}://"
        known = self._kinds()
        if kind not in known:
            similar = difflib.get_close_matches(kind, known, n=1)
            return f"no service is called {kind}://" + (f", but {similar[0]}:// is known" if similar else "")
        return f"it is not complete: {_plain(lines, address) or 'a part of it is missing'}"

    def send(self, address: str, text: AlarmText) -> str:
        """Send a text, and return why it did not arrive, empty when the service took it. It never raises."""
        results: SimpleQueue[str] = SimpleQueue()
        with timeline.during("question", "alarm"):
            Thread(target=lambda: results.put(self._sent(address, text)), daemon=True).start()
            try:
                return results.get(timeout=_LONGEST)
            except Empty:
                return "it does not finish its answer"

    def _sent(self, address: str, text: AlarmText) -> str:
        with _listening() as lines:
            try:
                service = self._service(address)
                if service is None:
                    return self.fault(address)
                kind = self._apprise.NotifyType.FAILURE if text.bad else self._apprise.NotifyType.SUCCESS
                if service.notify(
                    title=text.title, body=text.body, notify_type=kind, body_format=self._apprise.NotifyFormat.TEXT
                ):
                    return ""
            # Whatever a service's own code does not expect must not end the work.
            except Exception as error:
                return f"its service failed ({type(error).__name__})"
        return "it did not take the message" + (f" ({_plain(lines, address)})" if lines else "")

    def _service(self, address: str) -> Any:
        service = self._apprise.Apprise.instantiate(address, asset=self._asset)
        if service is not None and "overflow=" not in address:
            service.overflow_mode = self._apprise.OverflowMode.TRUNCATE
        return service

    def _kinds(self) -> list[str]:
        return sorted(str(kind) for kind in self._apprise.NotificationManager().schemas())


@contextmanager
def loaded() -> Iterator[Services]:
    """Load Apprise while the block runs. Raise StateError when that fails: there may be no room, not even in memory."""
    packed = resources.files("compose_chap.alarms") / _PACKED
    if "apprise" in sys.modules or not packed.is_file():
        yield Services(_imported())
        return
    with _unpacked(packed.read_bytes()) as folder:
        sys.path.insert(0, folder)
        try:
            yield Services(_imported())
        finally:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] == "apprise"]:
                del sys.modules[name]


@contextmanager
def _unpacked(content: bytes) -> Iterator[str]:
    with ExitStack() as stack:
        yield _unpacked_into(stack, content)


def _unpacked_into(stack: ExitStack, content: bytes) -> str:
    for room in _ROOM:
        with suppress(OSError), ExitStack() as attempt:
            folder = attempt.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=room))
            attempt.enter_context(lock.claimed(Path(folder)))
            _sweep(Path(folder))
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                packed.extractall(folder)
            stack.push(attempt.pop_all())
            return folder
    raise StateError(
        "There is no room to load the part that sends alarms.", hint="See which disk is full: df -h /tmp /dev/shm"
    )


def _sweep(own: Path) -> None:
    """Remove what killed processes of this user left beside our own folder an hour ago or more."""
    now = own.stat().st_mtime
    for left in own.parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if now - left.stat().st_mtime > _HOUR and lock.abandoned(left):
                shutil.rmtree(left, ignore_errors=True)


def _imported() -> Any:
    try:
        with _listening():
            import apprise
    # Whatever is wrong with it, the work goes on.
    except Exception as error:
        raise StateError(
            f"The part that sends alarms cannot be loaded ({type(error).__name__}).",
            hint="Install docker-chap again.",
        ) from None
    return apprise


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Give the list that what Apprise warns of is added to, and nothing of it gets onto the screen."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, listener = logging.getLogger("apprise"), Listener(logging.WARNING)
    logger.addHandler(listener)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            # A service's own code is loaded when it is needed, and may be old.
            warnings.simplefilter("ignore")
            yield lines
    finally:
        logger.removeHandler(listener)


def _plain(lines: list[str], address: str) -> str:
    """Return the last of what Apprise wrote, without any piece of the address."""
    return redact(" ".join(lines[-1:]), addresses.secrets(address)).strip().rstrip(".")
