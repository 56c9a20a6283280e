"""
Serves `/metrics` and `/healthz` inside the agent's own event loop: on the loopback address, or beyond it under TLS and to
those alone who show a password or a certificate.

uvicorn is embedded: it takes no signal, never ends the process, and is told to stop with a time limit. Clients come in by
our own door, which counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.clock import Clock
from agent.credentials import Secret
from agent.metrics import CONTENT_TYPE, Exporter
from agent.views.parts import JournalView, seconds
from agent.web.access import Access, TlsFiles, read_access
from agent.web.door import Door, Visitor
from agent.web.guard import Guard

PASS_WITHIN_S: Final = 10.0  # a loop that completed no pass for so long is not healthy
STARTED_WITHIN_S: Final = 5.0
STOPPED_WITHIN_S: Final = 3.0
BACKLOG: Final = 64
IP_FREEBIND: Final = 15  # <linux/in.h>; Python has no name for it

log = logging.getLogger(__name__)


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
    """Where to listen, and by what it is guarded; port 0 is any free one."""

    @property
    def metrics_host(self) -> str: ...
    @property
    def metrics_port(self) -> int: ...
    @property
    def tls(self) -> TlsFiles | None: ...
    @property
    def password_file(self) -> Path | Secret | None: ...


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
    """A server that leaves the process's signals alone, takes its clients by our door, and says when it listens."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, access: Callable[[], Access]) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._door = Door(listener, lambda: access().context, self._visitor)
        self._doorman: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal: they are the agent's."""
        yield

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=[])  # none of its own
        self._doorman = asyncio.create_task(self._door.run(), name="web door")
        self.listening.set()

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Let nobody in any more, and end what there is."""
        if self._doorman is not None:
            self._doorman.cancel()
            await asyncio.wait({self._doorman})
        await super().shutdown(sockets=[])

    def _visitor(self, on_gone: Callable[[], None]) -> Visitor:
        return Visitor(
            on_gone=on_gone, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class WebServer:
    """
    The web server of one agent, from `start` to `stop` or for as long as the context lasts. *credentials* is a directory
    of secrets given by hand.
    """

    def __init__(
        self, exporter: Exporter, loop: HealthyLoop, address: Address, credentials: Path | None = None
    ) -> None:
        self.host = address.metrics_host
        self.port = address.metrics_port
        self._address = address
        self._credentials = credentials
        self._access = Access()
        self._guard = Guard(application(exporter, loop), loop.clock, None)
        self._server: EmbeddedServer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def scheme(self) -> str:
        """Return http or https."""
        return "http" if self._access.context is None else "https"

    async def start(self) -> None:
        """
        Listen. Afterwards `port` is the one that is listened on.

        Raises:
            CredentialError: certificate, key or passwords cannot be used.
            OSError: the address is in use or not to be had, or is beyond loopback and not guarded (EADDRNOTAVAIL).
            TimeoutError: it did not come up.
        """
        self.read_anew()()
        listener = listening_socket(self.host, self.port, is_guarded=self._access.is_fit_for_the_network())
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._guard,
            http=Visitor,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # an address that a client may choose would be no use to count guesses by
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        self._server = EmbeddedServer(config, listener, lambda: self._access)
        self._task = asyncio.create_task(self._serve(self._server, listener), name="web")
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                await self._server.listening.wait()
        except TimeoutError:
            await self.stop()
            raise

    def read_anew(self) -> Callable[[], None]:
        """
        Read certificate, key and passwords, which may wait for the disk; return what puts them in force for those who
        connect from then on. Raises CredentialError, and all stays as it is.
        """
        access = read_access(self._address.tls, self._address.password_file, self._credentials)

        def put_in_force() -> None:
            self._access = access
            self._guard.admit(access.users)

        return put_in_force

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
            await server.serve(sockets=[])
        finally:
            listener.close()


def listening_socket(host: str, port: int, *, is_guarded: bool = False) -> socket.socket:
    """
    Return a socket that listens there; beyond the loopback only when *is_guarded*. uvicorn would end the process where this
    raises OSError.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback and not is_guarded:
        raise OSError(errno.EADDRNOTAVAIL, f"metrics on {host} would leave this machine, without password and TLS")
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(listener, str(address), port)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"metrics on {host}:{port}: {error.strerror}") from error
    return listener


def bind(listener: socket.socket, address: str, port: int) -> None:
    """
    Bind *listener*. An address that is not there yet is waited for by the kernel: a link that is down at the start must not
    keep the agent from watching. Raises OSError.
    """
    try:
        listener.bind((address, port))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        log.warning("web.address_not_here address=%s: served as soon as this machine has it", address)
        listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind((address, port))
