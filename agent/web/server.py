"""
Serves `/metrics` and `/healthz` over HTTP on the loopback address, inside the agent's own event loop.

uvicorn is embedded: it takes no signal, never ends the process, and is told to stop with a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.clock import Clock
from agent.metrics import CONTENT_TYPE, Exporter
from agent.views.parts import JournalView, seconds

PASS_WITHIN_S: Final = 10.0  # a loop that completed no pass for so long is not healthy
STARTED_WITHIN_S: Final = 5.0
STOPPED_WITHIN_S: Final = 3.0
CONNECTIONS_MAX: Final = 32
BACKLOG: Final = 64


class HealthyLoop(Protocol):
    """What health is read from."""

    @property
    def clock(self) -> Clock: ...
    @property
    def journal_view(self) -> JournalView: ...
    @property
    def passes(self) -> int: ...
    @property
    def last_pass_s(self) -> float: ...


class Address(Protocol):
    """Where to listen; port 0 is any free one."""

    @property
    def metrics_host(self) -> str: ...
    @property
    def metrics_port(self) -> int: ...


def health(loop: HealthyLoop) -> dict[str, Any]:
    """Return {ok, reasons, loop_last_pass_age_s, journal_durable}; `reasons` are sentences, none when all is well."""
    age_s = loop.clock.now().boot_s - loop.last_pass_s if loop.passes else None
    journal = loop.journal_view
    reasons = []
    if age_s is None:
        reasons.append("the loop has not completed a pass yet")
    elif age_s > PASS_WITHIN_S:
        reasons.append(f"the loop has not completed a pass for {age_s:.0f} s")
    if not journal.durable:
        reasons.append(f"the journal is not durable: {journal.reason}")
    return {
        "ok": not reasons,
        "reasons": reasons,
        "loop_last_pass_age_s": seconds(age_s),
        "journal_durable": journal.durable,
    }


def application(exporter: Exporter, loop: HealthyLoop) -> Starlette:
    """Return the pages as an ASGI application."""

    # Plain functions would be run in threads, beside the loop whose state they read.
    async def metrics(request: Request) -> Response:
        return Response(exporter.render(), media_type=CONTENT_TYPE)

    async def healthz(request: Request) -> Response:
        found = health(loop)
        return JSONResponse(found, status_code=200 if found["ok"] else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz)])


class EmbeddedServer(uvicorn.Server):
    """A server that leaves the process's signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal: they are the agent's."""
        yield

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=list(sockets) if sockets is not None else None)
        self.listening.set()


class WebServer:
    """The web server of one agent, from `start` to `stop` or for as long as the context lasts."""

    def __init__(self, exporter: Exporter, loop: HealthyLoop, address: Address) -> None:
        self.host = address.metrics_host
        self.port = address.metrics_port
        self._application = application(exporter, loop)
        self._server: EmbeddedServer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """
        Listen. Afterwards `port` is the one that is listened on.

        Raises:
            OSError: the address is in use or not to be had, or is not a loopback address (EADDRNOTAVAIL).
            TimeoutError: it did not come up.
        """
        listener = listening_socket(self.host, self.port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._application,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        self._server = EmbeddedServer(config)
        self._task = asyncio.create_task(self._serve(self._server, listener), name="web")
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                await self._server.listening.wait()
        except TimeoutError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening and end every connection. Doing so again changes nothing."""
        server, task = self._server, self._task
        self._server = self._task = None
        if server is None or task is None:
            return
        server.should_exit = True
        done, _ = await asyncio.wait({task}, timeout=STOPPED_WITHIN_S)
        if not done:
            server.force_exit = True
            task.cancel()
            await asyncio.wait({task}, timeout=STOPPED_WITHIN_S)

    async def __aenter__(self) -> WebServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.stop()

    @staticmethod
    async def _serve(server: EmbeddedServer, listener: socket.socket) -> None:
        try:
            await server.serve(sockets=[listener])
        finally:
            listener.close()


def listening_socket(host: str, port: int) -> socket.socket:
    """
    Return a socket that is bound to a loopback address. uvicorn would end the process where this raises OSError.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise OSError(errno.EADDRNOTAVAIL, f"metrics on {host} would leave this machine, without password and TLS")
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"metrics on {host}:{port}: {error.strerror}") from error
    return listener
