"""
Lets clients in: so many at a time, so many of one address, and none that keeps a connection without using it.

Whoever can reach the address can open connections. They must not use up the files that the agent needs for its journal and
its probes, so what is beyond the count waits in the kernel's queue, and is not ours yet.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.web.guard import counted_as

CLIENTS_MAX: Final = 32
CLIENTS_OF_ONE_MAX: Final = 8
HANDSHAKE_WITHIN_S: Final = 5.0
REQUEST_WITHIN_S: Final = 10.0  # a request and its answer; uvicorn itself ends a connection that rests for 5 s
TROUBLE_PAUSE_S: Final = 0.1

Context = Callable[[], ssl.SSLContext | None]
MakeVisitor = Callable[[Callable[[], None]], "Visitor"]  # what to call when it has gone -> the visitor

log = logging.getLogger(__name__)


class Visitor(H11Protocol):
    """One client's connection: it ends when a request with its answer is not over within its time."""

    def __init__(self, *, on_gone: Callable[[], None], **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._on_gone = on_gone
        self._answering: object = None  # the request that was being answered when it was looked at last
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch over its time."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for the next."""
        if self._look is not None:
            self._look.cancel()
        self._on_gone()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._look = self.loop.call_later(REQUEST_WITHIN_S, self._look_at_it)

    def _look_at_it(self) -> None:
        if self.cycle is self._answering:  # none in all that time, or still the same one
            self.transport.abort()
            return
        self._answering = self.cycle
        self._watch()


class Door:
    """Takes clients from *listener* until it is cancelled; *context* is asked for each, and may change meanwhile."""

    def __init__(self, listener: socket.socket, context: Context, make_visitor: MakeVisitor) -> None:
        self._listener = listener
        self._context = context
        self._make_visitor = make_visitor
        self._room = asyncio.Semaphore(CLIENTS_MAX)
        self._of_one: Counter[str] = Counter()
        self._entering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Take one client after the other."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._room.acquire()
                try:
                    client, address = await loop.sock_accept(self._listener)
                except OSError as error:  # gone again, or no file is left for it
                    self._room.release()
                    log.debug("web.not_accepted error=%s", error)
                    await asyncio.sleep(TROUBLE_PAUSE_S)
                    continue
                except asyncio.CancelledError:
                    self._room.release()
                    raise
                self._enter(client, counted_as(str(address[0])))
        finally:
            for task in tuple(self._entering):
                task.cancel()

    def _enter(self, client: socket.socket, host: str) -> None:
        if self._of_one[host] >= CLIENTS_OF_ONE_MAX:
            client.close()
            self._room.release()
            return
        self._of_one[host] += 1
        task = asyncio.create_task(self._greet(client, host), name="web client")
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _greet(self, client: socket.socket, host: str) -> None:
        """Shake hands. The visitor gives the room back when it has gone; one that never came in, here."""
        has_left = False

        def leave() -> None:
            nonlocal has_left
            if not has_left:
                has_left = True
                self._leave(host)

        context = self._context()
        visitor = self._make_visitor(leave)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: visitor,
                client,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_WITHIN_S if context is not None else None,
            )
        except (OSError, TimeoutError) as error:
            log.debug("web.no_handshake host=%s error=%s", host, error)
            leave()
            client.close()
        except asyncio.CancelledError:
            leave()
            client.close()
            raise

    def _leave(self, host: str) -> None:
        self._room.release()
        self._of_one[host] -= 1
        if self._of_one[host] <= 0:
            del self._of_one[host]
