"""
Ask a NUT server (`upsd`) about its devices over TCP. Protocol: RFC 9271; reads only.

A connection is kept from question to question and dropped on any doubt: a time-out, a cancellation, an answer that
breaks the protocol, an answer to something else. A late answer therefore dies with its connection and can never be
taken for the answer of the next question.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar, cast

from agent.errors import ProbeFault

LINE_BYTES_MAX: Final = 8 * 1024  # a value of upsd is at most 512 bytes before quoting
LIST_ROWS_MAX: Final = 4096  # the largest known device (a rack PDU with 48 outlets) has some 1000 variables
UNREAD_BYTES_MAX: Final = 64 * 1024  # beyond it we stop reading, and TCP holds the server back
SHOWN_CHARACTERS_MAX: Final = 120

SERVER_FAULTS: Final = {
    "ACCESS-DENIED": "access_denied",
    "DATA-STALE": "data_stale",
    "DRIVER-NOT-CONNECTED": "driver_not_connected",
    "UNKNOWN-UPS": "unknown_ups",
}
NO_WAY: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}

WORD: Final = re.compile(r' *(?:"((?:[^"\\]|\\.)*)"|([^ "\\]+))(?= |$)', re.DOTALL)
PLAIN: Final = re.compile(r"[A-Za-z0-9._-]+")

Answer = TypeVar("Answer")


class NutClient:
    """A connection to a NUT server, opened when needed and again after it was dropped; one question at a time."""

    def __init__(
        self, host: str, port: int = 3493, connect_timeout_s: float = 2.0, reply_timeout_s: float = 3.0
    ) -> None:
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._wire: _Wire | None = None
        self._lock = asyncio.Lock()

    async def get_var(self, ups: str, name: str) -> str:
        """
        Return the text of variable *name* of *ups*.

        Raises:
            ProbeFault: refused, timed_out, closed, unreachable, failed (the wire); access_denied, data_stale,
                driver_not_connected, unknown_ups (the server said so); bad_reply (anything else that it said).
            ValueError: a control character in a name, before anything was sent.
        """
        return await self._ask(f"GET VAR {quoted(ups)} {quoted(name)}", lambda wire: _read_var(wire, ups, name))

    async def list_vars(self, ups: str) -> dict[str, str]:
        """Return the text of every variable of *ups* by its name. Raises as `get_var` does."""
        return await self._ask(f"LIST VAR {quoted(ups)}", lambda wire: _read_list(wire, ups))

    async def close(self) -> None:
        """Let go of the connection; a question under way ends with the fault `closed`."""
        self._drop()

    async def _ask(self, question: str, read: Callable[[_Wire], Awaitable[Answer]]) -> Answer:
        async with self._lock:
            wire = await self._connected()
            try:
                async with asyncio.timeout(self._reply_timeout_s):
                    wire.send(question)
                    answer = await read(wire)
                if wire.has_unread:
                    raise ProbeFault("bad_reply", f"more came than the answer to {shown(question)}")
            except _ServerSaid:
                raise  # a whole answer, if not the one that was hoped for: the connection is sound
            except TimeoutError as error:
                self._drop()
                raise ProbeFault("timed_out", f"no whole answer within {self._reply_timeout_s:g} s") from error
            except BaseException:  # a cancellation too: a half-read connection is never used again
                self._drop()
                raise
            return answer

    async def _connected(self) -> _Wire:
        if self._wire is not None and self._wire.is_quiet():
            return self._wire
        self._drop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                self._wire = await self._connect()
        except TimeoutError as error:
            raise ProbeFault("timed_out", f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            raise ProbeFault(fault_of(error), shown(str(error))) from error
        return self._wire

    async def _connect(self) -> _Wire:
        # Address by address, since asyncio's own loop over them hides the error numbers when they fail differently.
        loop = asyncio.get_running_loop()
        failure = OSError(f"{self._host} has no address")
        for address in await _addresses(self._host, self._port):
            try:
                _, wire = await loop.create_connection(_Wire, address, self._port)
            except OSError as error:
                failure = error
            else:
                return wire
        raise failure

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None


async def _read_var(wire: _Wire, ups: str, name: str) -> str:
    match await wire.words():
        case ["VAR", said_ups, said_name, value] if (said_ups, said_name) == (ups, name):
            return value
        case ["ERR", *said]:
            raise _server_said(said)
        case words:
            raise ProbeFault("bad_reply", f"asked for {name} of {ups}, got: {shown(' '.join(words))}")


async def _read_list(wire: _Wire, ups: str) -> dict[str, str]:
    match await wire.words():
        case ["BEGIN", "LIST", "VAR", said_ups] if said_ups == ups:
            pass
        case ["ERR", *said]:
            raise _server_said(said)
        case words:
            raise ProbeFault("bad_reply", f"asked for the list of {ups}, got: {shown(' '.join(words))}")
    variables: dict[str, str] = {}
    while True:
        match await wire.words():
            case ["VAR", said_ups, name, value] if said_ups == ups and name not in variables:
                if len(variables) == LIST_ROWS_MAX:
                    raise ProbeFault("bad_reply", f"a list of more than {LIST_ROWS_MAX} rows")
                variables[name] = value
            case ["END", "LIST", "VAR", said_ups] if said_ups == ups:
                return variables
            case words:
                raise ProbeFault("bad_reply", f"in the list of {ups}: {shown(' '.join(words))}")


class _Wire(asyncio.Protocol):
    """One connection: what came and was not read yet, cut into lines."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._news = asyncio.Event()
        self._ended: tuple[str, str] | None = None  # fault, detail

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket = cast(socket.socket, transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > UNREAD_BYTES_MAX:
            self._transport.pause_reading()
        self._acknowledge_at_once()
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = (fault_of(error), shown(str(error)) if error else "the server ended the connection")
        self._news.set()

    @property
    def has_unread(self) -> bool:
        return bool(self._unread)

    def is_quiet(self) -> bool:
        """Whether the connection stands and nothing has come unasked: it cannot be the answer to what we ask next."""
        if self._unread or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def send(self, question: str) -> None:
        self._acknowledge_at_once()
        self._transport.write(question.encode() + b"\n")

    def abort(self) -> None:
        self._transport.abort()

    async def words(self) -> list[str]:
        line = await self._line()
        try:
            return split(line)
        except ValueError as error:
            raise ProbeFault("bad_reply", str(error)) from error

    async def _line(self) -> str:
        while (end := self._unread.find(b"\n", 0, LINE_BYTES_MAX + 1)) < 0:
            if len(self._unread) > LINE_BYTES_MAX:
                raise ProbeFault("bad_reply", f"a line of more than {LINE_BYTES_MAX} bytes")
            if self._ended:
                raise ProbeFault(*self._ended)
            self._news.clear()
            await self._news.wait()
        line = self._unread[:end].decode("utf-8", "replace")
        del self._unread[: end + 1]
        if len(self._unread) <= UNREAD_BYTES_MAX:
            self._transport.resume_reading()
        return line.removesuffix("\r")

    def _acknowledge_at_once(self) -> None:
        # upsd writes an answer in small pieces with Nagle's algorithm on: each piece waits for our acknowledgement,
        # which the kernel would delay by 40 ms. The kernel forgets the setting, so it is made anew for each read.
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _ServerSaid(ProbeFault):
    """The server answered in due form that it will not or cannot."""


def _server_said(said: list[str]) -> _ServerSaid:
    code = said[0] if said else ""
    return _ServerSaid(SERVER_FAULTS.get(code, "bad_reply"), shown(f"ERR {' '.join(said)}"))


async def _addresses(host: str, port: int) -> list[str]:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fault_of(error: Exception | None) -> str:
    """Return the fault name for what ended a connection or an attempt at one; None is an end in good order."""
    match error:
        case None:
            return "closed"
        case TimeoutError():
            return "timed_out"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionError():
            return "closed"
        case OSError(errno=number) if number in NO_WAY:
            return "unreachable"
    return "failed"


def split(line: str) -> list[str]:
    r"""
    Return the words of *line*; a quoted word may hold spaces, `\"` and `\\`.

    Raises:
        ValueError: a quote without end, or a quote or backslash in the middle of a bare word.
    """
    words = []
    end = 0
    text = line.rstrip(" ")
    while end < len(text):
        word = WORD.match(text, end)
        if word is None:
            raise ValueError(f"bad quoting: {shown(line)}")
        inside, bare = word.groups()
        words.append(bare if inside is None else re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL))
        end = word.end()
    return words


def quoted(word: str) -> str:
    r"""
    Return *word* as it goes into a line of the protocol: bare when plain, else in quotes with `\"` and `\\`.

    Raises:
        ValueError: *word* holds a control character, which would end the line early.
    """
    if PLAIN.fullmatch(word):
        return word
    if any(character < " " or character == "\x7f" for character in word):
        raise ValueError(f"control character in {word!r}")
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def shown(text: str, characters_max: int = SHOWN_CHARACTERS_MAX) -> str:
    """Return *text* fit to be shown: whatever does not print is escaped, and no more than *characters_max* are kept."""
    safe = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text[:characters_max]
    )
    return safe if len(text) <= characters_max and len(safe) <= characters_max else safe[: characters_max - 1] + "…"
