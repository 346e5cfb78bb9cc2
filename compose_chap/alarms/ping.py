"""Tell a monitor that work began, succeeded or failed: the protocol of healthchecks.io, which many others speak too.

The monitor raises the alarm, also when nothing reaches it for too long: this machine may be the one that is down.
"""

from __future__ import annotations

from enum import Enum

import httpx

from compose_chap import timeline

_TRIES = 3
_SECONDS = 15.0
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
    body, why = reason.encode()[-_LARGEST:].decode(errors="ignore"), ""
    with timeline.during("question", "monitor"), httpx.Client(transport=transport, timeout=_SECONDS) as client:
        for _ in range(_TRIES):
            try:
                answer = client.post(address, content=body)
                if answer.status_code < 400:
                    return ""
                why = f"{address.host} answers with HTTP {answer.status_code}"
            except httpx.HTTPError as error:
                # Not the error's own text: it may hold the address, whose path is the only secret.
                why = f"{address.host} cannot be reached ({type(error).__name__})"
    return why
