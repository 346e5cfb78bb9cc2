"""The Docker CLI plugin protocol: metadata, docker's own flags, the cancel socket, the exit status.

Docker runs `docker-chap [DOCKER'S FLAGS] chap WORDS`. Run directly, the word `chap` may be missing.
"""

from __future__ import annotations

import gc
import io
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from compose_chap import __version__

METADATA = {
    "SchemaVersion": "0.1.0",
    "Vendor": "the compose-chap project",
    "Version": __version__,
    "ShortDescription": "Back up, upgrade and restore CHAP",
}

CANCELLED = 130
BROKEN_PIPE = 141

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE = 2.0  # seconds

_SWITCHES = ("--debug", "--tls", "--tlsverify")
_VALUED = ("--config", "--context", "--host", "--log-level", "--tlscacert", "--tlscert", "--tlskey")


def main() -> int:
    """Answer docker's question, or run the command that docker was given, and return the exit status."""
    if sys.argv[1:2] == ["docker-cli-plugin-metadata"]:
        print_metadata()
        return 0

    flags, words = split(sys.argv[1:])
    docker = (docker_command(), *flags)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that the terminal lacks letters for
    ignore_lost_stderr()
    try:
        listen_for_the_end()
        status = run(words, docker)
    except KeyboardInterrupt:
        status = CANCELLED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            status = BROKEN_PIPE
        else:
            report(error, words, debug=asks_for_debug(flags))
            status = 1
    # Python removes its signal handlers before it ends: a signal after that would replace the exit status.
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # at its end Python would look for garbage in all that was loaded
    return delivered(status)


def docker_command() -> str:
    """Return the name that docker was called by. When it completes, docker names the plugin itself in its place."""
    name = os.environ.get("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND")
    return name if name and os.path.basename(name) != "docker-chap" else "docker"


def print_metadata() -> None:
    """Print the plugin's metadata. In the built file the shell header does this, without starting Python."""
    import json

    print(json.dumps(METADATA))


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return docker's own flags, as they were spelled, and the words after them."""
    start = 0
    while start < len(words) and (width := flag_width(words[start])):
        start += width
    return list(words[:start]), list(words[start:])


def flag_width(word: str) -> int:
    """Return how many words the docker flag that starts with `word` takes; 0 when docker has no such flag."""
    if word.startswith("--"):
        name, equals, _ = word.partition("=")
        if name in _SWITCHES:
            return 1
        return 0 if name not in _VALUED else 1 if equals else 2
    if not word.startswith("-"):
        return 0
    letters = word[1:].lstrip("D")  # -D may stand before another letter: -Dc NAME
    if letters[:1] in ("c", "H", "l"):
        return 1 if letters[1:] else 2
    return 1 if word[1:2] == "D" and letters[:1] in ("", "=") else 0


def asks_for_debug(flags: Sequence[str]) -> bool:
    """Return whether docker was called with -D or --debug."""
    return any(flag.startswith(("-D", "--debug")) and not flag.endswith("=false") for flag in flags)


class _Unheard(io.FileIO):
    def write(self, data: memoryview, /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return data.nbytes


def ignore_lost_stderr() -> None:
    """Drop output to standard error when nobody reads it any more.

    In `docker chap upgrade 2>&1 | head`, or on a terminal that is gone, a failed write must not stop the work.
    """
    with suppress(OSError, ValueError, AttributeError):
        unheard = _Unheard(sys.stderr.fileno(), "w", closefd=False)
        stream = io.BufferedWriter(unheard)  # type: ignore[type-var]
        sys.stderr = io.TextIOWrapper(stream, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def run(words: list[str], docker: tuple[str, ...]) -> int:
    """Run the command line; `docker` is the command with which child processes call docker."""
    if words in (["version"], ["chap", "version"]):
        print(f"docker chap {__version__}")  # without loading the commands, which takes time
        return 0
    from compose_chap.cli import app

    match words:
        case ["__complete", "chap", *rest]:
            return app.complete(rest, docker)
        case ["watch-over", folder]:  # this process is one that --detach began
            from compose_chap.cli import detach

            return detach.watch_over(folder)
        case ["__completeNoDesc", *rest]:  # as the completion of docker 20.10 calls the file itself
            return app.complete(rest, docker, described=False)
        case ["help" | "--help" | "-h", "chap", *rest]:
            return app.main([*rest, "--help"], docker)
        case ["--version" | "-v", "chap", *_]:
            return app.main(["version"], docker)
        case ["chap", *rest] | ["--", "chap", *rest]:
            return app.main(rest, docker)
        case _:
            return app.main(words, docker)


def listen_for_the_end() -> None:
    """Make every request to stop raise KeyboardInterrupt in the main thread.

    A service manager sends SIGTERM, a lost terminal SIGHUP, and docker, when it is not on a terminal, sends no
    signal at all: it closes the socket that it gave us. A single request often comes in two of these ways. The
    second must not interrupt the clean-up that the first began, so requests within two seconds are ignored.
    """
    heard = -math.inf

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        if time.monotonic() - heard > _AT_ONCE:
            heard = time.monotonic()
            raise KeyboardInterrupt

    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, SIGHUP stays ignored
            signal.signal(number, interrupt)
    if address := os.environ.get("DOCKER_CLI_PLUGIN_SOCKET"):
        watch(address)


def watch(address: str) -> None:
    """Interrupt the main thread when docker closes its end of the socket, or dies."""
    import socket
    import threading

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        connection.close()  # an old docker does not listen: signals must be enough
        return

    def wait(main_thread: int) -> None:
        with connection, suppress(ConnectionError):
            while connection.recv(64):
                pass
        # A signal to another thread would not end a call in which the main thread waits.
        signal.pthread_kill(main_thread, signal.SIGTERM)

    threading.Thread(target=wait, args=[threading.get_ident()], name="cancel socket", daemon=True).start()


def report(error: Exception, words: Sequence[str], *, debug: bool) -> None:
    """Report an unexpected exception: what, where, and what to do next; with --json as a document too.

    An exception's message may hold a secret, unless it comes from the operating system.
    """
    import traceback

    if debug:
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    origin = ([frame for frame in frames if "compose_chap" in frame.filename] or frames)[-1]
    what = str(error) if isinstance(error, OSError) else type(error).__name__
    what += f" (in {os.path.basename(origin.filename)}, line {origin.lineno})"
    hint = "To report the bug, run the same command as `docker --debug chap ...` and send what it prints."
    if any(word.endswith("json") for word in words):
        from compose_chap.cli import app

        if app.tell_bug(words, f"{what}. This is a bug in docker chap {__version__}.", hint):
            return
    print(
        f"Error: {what}\n"
        f"This is a bug in docker chap {__version__}. To see the state of the stack now, run `docker chap status`.\n"
        f"{hint}",
        file=sys.stderr,
    )


def nobody_reads() -> bool:
    """Return whether the reader of our output has ended, as in `docker chap history | head -1`."""
    import select

    results = select.poll()
    results.register(1, 0)
    return bool(results.poll(0))


def delivered(status: int) -> int:
    """Flush the output and return the exit status; a different status when the output cannot be written."""
    if sys.stdout is None:
        return status
    try:
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        status = BROKEN_PIPE
    except OSError as error:
        print(f"Error: the result cannot be written: {error.strerror}", file=sys.stderr)
        status = 1
    # The rest of the buffer would fail again, with a traceback, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
