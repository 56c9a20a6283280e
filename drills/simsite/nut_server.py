"""A NUT server of the simulated branch: answers RFC 9271 reads from a dictionary, and can be broken on purpose."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Final

from probes.wire.nut import split

LINE_BYTES_MAX: Final = 512
VERSION: Final = "Network UPS Tools upsd - simulated branch"
PROTOCOL: Final = "1.3"


class NutFault(StrEnum):
    """How a NUT server can fail its clients."""

    FROZEN = "frozen"  # takes connections and questions, answers nothing until it is thawed
    CLOSED = "closed"  # takes connections, ends them at the first question
    DENIED = "denied"  # answers ERR ACCESS-DENIED
    STALE = "stale"  # the driver has gone quiet: ERR DATA-STALE
    DRIVER_GONE = "driver_gone"  # the driver has died: ERR DRIVER-NOT-CONNECTED
    WAIT = "wait"  # the driver is there and has told nothing yet: the status is WAIT, and there is nothing else


ERRORS: Final = {
    NutFault.DENIED: "ERR ACCESS-DENIED",
    NutFault.STALE: "ERR DATA-STALE",
    NutFault.DRIVER_GONE: "ERR DRIVER-NOT-CONNECTED",
}
UNTOLD: Final = {"ups.status": "WAIT"}


class SimNutServer:
    """
    Stands for `upsd`. `ups` maps each device's name to its variables and may be changed at any time. `fault` breaks the
    whole server, `faults` single devices (DENIED, STALE, DRIVER_GONE, WAIT; the others mean nothing there). No socket
    is opened before `start`; the port outlives `stop`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.ups: dict[str, dict[str, str]] = {}
        self.faults: dict[str, NutFault] = {}
        self._host = host
        self._port = port
        self._fault: NutFault | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the port is 0 until the first start where none was asked for."""
        return self._host, self._port

    @property
    def fault(self) -> NutFault | None:
        """How the whole server fails, None when it works."""
        return self._fault

    @fault.setter
    def fault(self, fault: NutFault | None) -> None:
        self._fault = fault
        if fault is NutFault.FROZEN:
            self._thawed.clear()
        else:
            self._thawed.set()

    async def start(self) -> None:
        """Listen; harmless when it does so already. Raises OSError when the port is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=LINE_BYTES_MAX)
            self._port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """End every connection and refuse new ones; harmless when it does so already."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        connections = dict(self._connections)
        for task, writer in connections.items():
            writer.transport.abort()
            task.cancel()  # a frozen one would wait for the thaw
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A question too long for the buffer (ValueError) ends the connection.
            with suppress(ConnectionError, ValueError):
                await self._answer_all(reader, writer)
        finally:
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (line := await reader.readline()).endswith(b"\n"):
            await self._thawed.wait()
            if self._fault is NutFault.CLOSED:
                return
            writer.write("".join(f"{said}\n" for said in self._answer(line.decode("utf-8", "replace"))).encode())
            await writer.drain()
            if line.strip().upper() == b"LOGOUT":
                return

    def _answer(self, line: str) -> list[str]:
        try:
            words = split(line.rstrip("\r\n"))
        except ValueError:
            return ["ERR INVALID-ARGUMENT"]
        verb = [word.upper() for word in words[:2]]
        match verb, words[2:]:
            case ["GET", "VAR"], [ups, name]:
                return self._answer_get(ups, name)
            case ["LIST", "VAR"], [ups]:
                return self._answer_list(ups)
            case ["LIST", "UPS"], []:
                rows = [f'UPS {ups} "simulated"' for ups in self.ups]
                return ["BEGIN LIST UPS", *rows, "END LIST UPS"]
            case ["GET" | "LIST", *_], _:
                return ["ERR INVALID-ARGUMENT"]
        return {"VER": [VERSION], "NETVER": [PROTOCOL], "LOGOUT": ["OK Goodbye"]}.get(
            verb[0] if len(words) == 1 else "", ["ERR UNKNOWN-COMMAND"]
        )

    def _answer_get(self, ups: str, name: str) -> list[str]:
        variables = self._variables(ups)
        if isinstance(variables, str):
            return [variables]
        if name not in variables:
            return ["ERR VAR-NOT-SUPPORTED"]
        return [f"VAR {ups} {name} {_value(variables[name])}"]

    def _answer_list(self, ups: str) -> list[str]:
        variables = self._variables(ups)
        if isinstance(variables, str):
            return [variables]
        rows = [f"VAR {ups} {name} {_value(variables[name])}" for name in sorted(variables)]
        return [f"BEGIN LIST VAR {ups}", *rows, f"END LIST VAR {ups}"]

    def _variables(self, ups: str) -> Mapping[str, str] | str:
        """Return the variables of *ups*, or the error line that hides them."""
        if ups not in self.ups:
            return "ERR UNKNOWN-UPS"
        fault = self._fault or self.faults.get(ups)
        if fault in ERRORS:
            return ERRORS[fault]
        return UNTOLD if fault is NutFault.WAIT else self.ups[ups]


def _value(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
