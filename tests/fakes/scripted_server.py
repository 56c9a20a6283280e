"""A TCP server that does on each connection exactly what a test tells it, however wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

Script = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One connection as a script sees it."""

    def __init__(self, server: ScriptedServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    async def asked(self) -> str:
        """Return the next question; a client that leaves ends the script."""
        line = await self._reader.readline()
        if not line:
            raise ConnectionResetError
        self._server.questions.append(line.decode().rstrip("\n"))
        return self._server.questions[-1]

    async def say(self, answer: str | bytes) -> None:
        """Send *answer* as it is."""
        self._writer.write(answer if isinstance(answer, bytes) else answer.encode())
        await self._writer.drain()

    async def until_left(self) -> None:
        """Wait until the client has ended the connection."""
        with suppress(ConnectionError):
            while await self._reader.read(1024):
                pass

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class ScriptedServer:
    """
    Runs the first script on the first connection and so on, the last one on every later connection too. A connection
    whose script is over stays open until the client leaves, unless the script closed it. What a script raises is raised
    when the server is left.
    """

    def __init__(self, *scripts: Script) -> None:
        self.questions: list[str] = []
        self.connections = 0
        self.ended = 0
        self._scripts = scripts
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._server.sockets[0].getsockname()
        return str(host), int(port)

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._run(script, Connection(self, reader, writer), writer)))

    async def _run(self, script: Script, connection: Connection, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                await script(connection)
                await connection.until_left()
        finally:
            self.ended += 1
            writer.close()


def saying(*answers: str | bytes) -> Script:
    """Return a script that gives each question its answer, in order."""

    async def script(connection: Connection) -> None:
        for answer in answers:
            await connection.asked()
            await connection.say(answer)

    return script
