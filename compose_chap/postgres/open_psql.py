"""A psql that stays open for several questions: starting a program in a container takes longer than most answers."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager

from compose_chap import timeline
from compose_chap.engine.engine import Execution
from compose_chap.engine.process import Finished
from compose_chap.errors import EngineError

_LONGEST_ANSWER = 64 << 20
# What a question changed for its session must not hold for the next one.
_AS_NEW = "RESET SESSION AUTHORIZATION; RESET ALL;"


class OpenPsql:
    """A running psql. At the first error it ends; when this process ends, so does it."""

    def __init__(self, process: AbstractContextManager[Execution]) -> None:
        self._process = process
        self._execution = process.__enter__()
        self._output = self._execution.output()
        # Nobody can make an answer that looks like this line.
        self._end = f"docker-chap-{secrets.token_hex(16)}"
        self.ended = False

    def ask(self, sql: str) -> Finished:
        """Run SQL and return its output. Afterwards `ended` says whether psql has ended, as it does at an error."""
        with timeline.during("question", "psql"):
            try:
                return self._ask(sql)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End psql, also in the middle of an answer."""
        if not self.ended:
            self.ended = True
            self._process.__exit__(None, None, None)

    def _ask(self, sql: str) -> Finished:
        self._execution.stderr = b""
        self._execution.send(f"{sql}\n;\n{_AS_NEW}\n\\echo {self._end}\n".encode())
        last, text = f"{self._end}\n".encode(), bytearray()
        for data in self._output:
            text += data
            if len(text) > _LONGEST_ANSWER:
                raise EngineError("PostgreSQL wrote far too much.")
            if text.endswith(last):
                return Finished(0, text[: -len(last)].decode(errors="replace"), "")
        status, stderr = self._execution.status(), self._execution.stderr.decode(errors="replace")
        self.close()
        # One that ended without an error did so before it came to the end of the question.
        if status == 0:
            raise EngineError("The connection to the Docker engine was lost while a command ran in a container.")
        return Finished(status, text.decode(errors="replace"), stderr)
