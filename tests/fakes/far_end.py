"""The far end of a line on the loopback: tells each caller the source it saw, says nothing, or tells it wrong."""

from __future__ import annotations

import asyncio
from types import TracebackType


class FarEnd:
    """Listens on an address of the loopback while it is entered. `silent` and `tells` may be changed at any time."""

    def __init__(self, address: str = "127.0.0.9") -> None:
        self.address = address
        self.silent = False
        self.tells: str | None = None  # what it says instead of the truth, "" to hang up without a word
        self.callers: list[str] = []
        self._server: asyncio.Server | None = None
        self._held: list[asyncio.StreamWriter] = []

    @property
    def target(self) -> str:
        """This far end as the target of a line."""
        return f"{self.address}:{self.port}/source"

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> FarEnd:
        self._server = await asyncio.start_server(self._answer, self.address, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._held:
            writer.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller: str = writer.get_extra_info("peername")[0]
        self.callers.append(caller)
        if self.silent:
            self._held.append(writer)  # the connection stands, as over a line on which the answer is lost
            return
        told = caller + "\n" if self.tells is None else self.tells
        writer.write(told.encode())
        writer.close()
