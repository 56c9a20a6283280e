"""Asks a running agent over its Unix socket: one line of JSON there, one line back (docs/control.md)."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from pathlib import Path
from typing import Any, Final

from agent.errors import ChangeoverError

LINE_BYTES_MAX: Final = 64 * 1024  # of a request
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
ANSWER_WITHIN_S: Final = 15.0  # longer than the agent itself takes to give up
NOBODY: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


class NobodyAnswers(ChangeoverError):
    """There is no agent behind this socket."""


class ControlRefused(ChangeoverError):
    """The agent answered with an error; `code` is one of those in docs/control.md."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


def request(path: Path, verb: str, *, within_s: float = ANSWER_WITHIN_S, **fields: Any) -> Any:
    """
    Return the agent's answer to *verb* with *fields*, waiting at most *within_s* seconds for each part of it.

    Raises:
        NobodyAnswers: no agent listens there.
        ControlRefused: it said no, or it cannot be talked to ("no_permission", "no_answer", "bad_answer").
    """
    line = json.dumps({"verb": verb, **fields}, ensure_ascii=False).encode() + b"\n"
    if len(line) > LINE_BYTES_MAX:
        raise ControlRefused("too_long", f"a request has at most {LINE_BYTES_MAX} bytes, this one has {len(line)}")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            connection.connect(str(path))
            # An agent that is busy says so and hangs up, which may be before all was sent; its word is still there to read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(line)
            return unpacked(read_line(connection))
    except TimeoutError as error:
        raise ControlRefused("no_answer", f"the agent at {path} did not answer within {within_s:g} s") from error
    except PermissionError as error:
        raise ControlRefused("no_permission", f"you may not talk to the agent at {path}: {error.strerror}") from error
    except OSError as error:
        if error.errno in NOBODY:
            raise NobodyAnswers(f"no agent answers at {path}") from error
        raise ControlRefused("no_answer", f"the agent at {path}: {error.strerror or error}") from error


def read_line(connection: socket.socket) -> bytes:
    """Return one line. Raises ControlRefused when it ends too soon or is too long."""
    found = bytearray()
    while not found.endswith(b"\n"):
        part = connection.recv(65_536)
        if not part:
            raise ControlRefused("no_answer", "the agent ended the connection without an answer")
        found += part
        if len(found) > ANSWER_BYTES_MAX:
            raise ControlRefused("bad_answer", f"the answer has more than {ANSWER_BYTES_MAX} bytes")
    return bytes(found)


def unpacked(line: bytes) -> Any:
    """Return the result in an answer. Raises ControlRefused for an error in it, and for what is no answer."""
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise ControlRefused("bad_answer", f"the answer is no JSON: {error}") from error
    if not isinstance(answer, dict) or not ({"result", "error"} & answer.keys()):
        raise ControlRefused("bad_answer", "the answer has neither result nor error")
    if "error" in answer:
        raise ControlRefused(str(answer["error"]["code"]), str(answer["error"]["text"]))
    return answer["result"]
