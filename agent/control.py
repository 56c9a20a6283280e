"""
The control socket: people's words to a running agent, one line of JSON each (docs/control.md).

Who speaks is told by the kernel (SO_PEERCRED), never by the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from agent.control_client import LINE_BYTES_MAX
from agent.control_verbs import LOOKING, VERBS, Desk, Refused, checked
from agent.errors import StateDirectoryInUse

REQUEST_WITHIN_S: Final = 30.0  # from one line to the next
SEND_WITHIN_S: Final = 10.0
LINGER_S: Final = 1.0
STOP_WITHIN_S: Final = 2.0
CLIENTS_MAX: Final = 32
BACKLOG: Final = 16
SOCKET_MODE: Final = 0o660
PATH_BYTES_MAX: Final = 107 - len(".new")
CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid

log = logging.getLogger(__name__)


class SocketInUse(StateDirectoryInUse):
    """Another agent answers at this socket."""


class ControlServer:
    """The control socket of one agent, from `start` to `stop` or for as long as the context lasts."""

    def __init__(self, path: Path, loop: Desk) -> None:
        self.path = path
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._inode: int | None = None
        self._clients: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """
        Listen.

        Raises:
            SocketInUse: another agent answers there.
            OSError: the socket cannot be made.
        """
        listener = listening_socket(self.path)
        self._inode = self.path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LINE_BYTES_MAX)

    async def stop(self) -> None:
        """Stop listening, let go of every client, and remove the socket. Doing so again changes nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients, timeout=STOP_WITHIN_S)
        try:
            if self.path.stat().st_ino == self._inode:  # a successor may have put its own there
                self.path.unlink()
        except FileNotFoundError:
            log.debug("control.socket_gone path=%s", self.path)

    async def __aenter__(self) -> ControlServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    # ------------------------------------------------------------ one client

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted in the moment in which we stop
            writer.close()
            return
        task = asyncio.create_task(self._client(reader, writer, is_full=len(self._clients) >= CLIENTS_MAX))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_full: bool) -> None:
        try:
            if is_full:
                await dismiss(reader, writer, failure("busy", f"{CLIENTS_MAX} clients are connected already"))
            else:
                await self._serve(reader, writer, peer(writer))
        except (OSError, TimeoutError) as error:
            log.debug("control.client_lost error=%r", error)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, owner: str) -> None:
        """Answer one request after the other until the client goes."""
        while True:
            try:
                async with asyncio.timeout(REQUEST_WITHIN_S):
                    line = await reader.readline()
            except ValueError:
                await dismiss(reader, writer, failure("too_long", f"a request has at most {LINE_BYTES_MAX} bytes"))
                return
            except TimeoutError:
                await dismiss(reader, writer, failure("timed_out", f"no whole request within {REQUEST_WITHIN_S:.0f} s"))
                return
            if not line.endswith(b"\n"):  # the client went; half a request is none
                return
            await send(writer, await self._answer(line, owner))

    async def _answer(self, line: bytes, owner: str) -> dict[str, Any]:
        """Return the answer to one request; whatever goes wrong with it, the next one is still answered."""
        try:
            verb, words = checked(parsed(line))
            if verb not in LOOKING:
                log.info("control.asked verb=%s owner=%s words=%s", verb, owner, words)
            return {"result": await VERBS[verb].do(self._loop, owner, words)}
        except Refused as refused:
            return failure(refused.code, str(refused))
        except TimeoutError:
            reason = self._loop.journal_view.reason or "the disk is slow"
            return failure("not_durable", f"taken, and in force, but not on disk yet: {reason}")
        except Exception as error:
            log.exception("control.failed request=%r", line[:200])
            return failure("failed", f"a fault in the agent: {error!r}")


def parsed(line: bytes) -> Mapping[str, Any]:
    """Return the object in *line*. Raises Refused."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_request", f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused("bad_request", "a request is an object")
    return found


def failure(code: str, text: str) -> dict[str, Any]:
    """Return an error as an answer."""
    return {"error": {"code": code, "text": text}}


async def send(writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
    """Send one line. Raises TimeoutError for a client that does not read."""
    # Surrogates (bytes of a device that are no UTF-8) have no bytes of their own, so all is escaped.
    writer.write(json.dumps(answer, allow_nan=False).encode("ascii") + b"\n")
    async with asyncio.timeout(SEND_WITHIN_S):
        await writer.drain()


async def dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
    """Send a last word, then read what is still on its way: hanging up on unread words would take ours away again."""
    await send(writer, answer)
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(LINE_BYTES_MAX):
                continue


def peer(writer: asyncio.StreamWriter, name_of: Callable[[int], pwd.struct_passwd] = pwd.getpwuid) -> str:
    """Return the login name of the process at the other end, its user id where it has no name."""
    connection: socket.socket = writer.get_extra_info("socket")
    _, uid, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    try:
        return name_of(uid).pw_name
    except KeyError:
        return str(uid)


# ---------------------------------------------------------------- the socket


def listening_socket(path: Path) -> socket.socket:
    """
    Return a socket that listens at *path* with mode 0660, in place of one that nobody answers at.

    Raises: as `ControlServer.start`.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, f"the path of a socket has at most {PATH_BYTES_MAX} bytes", str(path))
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    refuse_living(path)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(fresh))
        # Only then is it put in its place: nobody reaches it before its mode is right.
        fresh.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        fresh.rename(path)
    except OSError:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise
    return listener


def refuse_living(path: Path) -> None:
    """Raise SocketInUse when somebody answers at *path*, OSError when something else than a socket stands there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.ENOTSOCK, "something else than a socket is in its place", str(path))
    with socket.socket(socket.AF_UNIX) as trial:
        trial.setblocking(False)
        answer = trial.connect_ex(str(path))
    if answer in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise SocketInUse(f"another agent answers at {path}")
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(answer, os.strerror(answer), str(path))
