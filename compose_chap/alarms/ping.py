"""Tell a monitor that work began, succeeded or failed: the protocol of healthchecks.io, which many others speak too.

The monitor raises the alarm, also when nothing reaches it for too long: this machine may be the one that is down.
"""

from __future__ import annotations

from enum import Enum
from queue import Empty, SimpleQueue
from threading import Thread

import httpx

from compose_chap import timeline

_TRIES = 3
_SECONDS = 15.0
_LONGEST = 60.0  # seconds for all tries, however an answer drips
_LARGEST = 10_000  # bytes of a reason; healthchecks.io keeps that much


class Signal(str, Enum):
    """What is said; the value is added to the address."""

    START = "/start"
    SUCCESS = ""
    FAIL = "/fail"
    LOG = "/log"  # kept by the monitor, and means neither success nor failure


def host(url: str) -> str:
    """Return the host of an address, which is no secret."""
    return httpx.URL(url).host


def is_address(url: str) -> bool:
    """Return whether a text is an address that can be pinged."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def ping(url: str, signal: Signal, reason: str = "", transport: httpx.BaseTransport | None = None) -> str:
    """Send a signal with a reason, and return why it did not arrive, empty when it did. It never raises."""
    address = httpx.URL(url)
    address = address.copy_with(path=address.path.rstrip("/") + signal.value)
    body = reason.encode()[-_LARGEST:].decode(errors="ignore")
    # httpx limits the time of each read. What waits for the monitor is a backup.
    results: SimpleQueue[str] = SimpleQueue()
    with timeline.during("question", "monitor"):
        Thread(target=lambda: results.put(_send(address, body, transport)), daemon=True).start()
        try:
            return results.get(timeout=_LONGEST)
        except Empty:
            return f"{address.host} does not finish its answer"


def _send(address: httpx.URL, body: str, transport: httpx.BaseTransport | None) -> str:
    why = ""
    for _ in range(_TRIES):
        try:
            # Its status is the answer; nobody reads the rest.
            with (
                httpx.Client(transport=transport, timeout=_SECONDS) as client,
                client.stream("POST", address, content=body) as answer,
            ):
                if answer.is_success:
                    return ""
                why = f"{address.host} answers with HTTP {answer.status_code}"
            if answer.has_redirect_location:
                return f"{why}: write the address that it redirects to"
        except Exception as error:  # also what a proxy's address ends in, which no error of httpx is
            # Not the error's own text: it may hold the address, whose path is the only secret.
            why = f"{address.host} cannot be reached ({type(error).__name__})"
    return why
