"""The far ends of the simulated branch: TCP on the loopback, telling each caller the source address they saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

RUNGS: Final = ("cpe", "edge", "hq")  # nearest first; what breaks at one is broken for all behind it
HQ_ADDRESS: Final = "127.0.20.1"
CALL_S: Final = 5.0  # a call lasts no longer; a probe has given up long before


@dataclass(frozen=True, slots=True)
class SimLine:
    """One line of the simulated branch: its own address, by which far ends know it, its cpe and the provider's edge."""

    source: str
    cpe: str
    edge: str


@dataclass(frozen=True, slots=True)
class LineFault:
    """This part of what is asked of *rung* or of what lies behind it gets no answer; 1 is silence."""

    rung: str
    loss_ratio: float


LINES: Final[Mapping[str, SimLine]] = {
    "wan1": SimLine("127.0.0.11", "127.0.11.1", "127.0.11.2"),
    "wan2": SimLine("127.0.0.12", "127.0.12.1", "127.0.12.2"),
}


class FarEnds:
    """
    The boxes and edges of *lines*, and one headquarters that all of them reach.

    A caller whose answer is lost sees its connection stand and nothing come, as on a line that drops what it carries.
    `hq_dead` may be changed at any time. Losses are drawn from *seed*. The ports outlive `stop`.
    """

    def __init__(self, lines: Mapping[str, SimLine] = LINES, seed: int = 1) -> None:
        self.hq_dead = False
        self.calls = 0
        self._lines = dict(lines)
        self._by_source = {line.source: name for name, line in lines.items()}
        self._faults: dict[str, LineFault] = {}
        self._random = random.Random(seed)  # noqa: S311 - no secret hangs on it, and a run can be repeated
        self._ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._calls: set[asyncio.Transport] = set()

    def target(self, line: str, rung: str) -> str:
        """Return *rung* of *line* as a target of the site file. Raises KeyError before the first start."""
        address = self._address(line, rung)
        return f"{address}:{self._ports[address]}/source"

    def break_line(self, line: str, rung: str = "edge") -> None:
        """Let *line* fall silent from *rung* on."""
        self.lose(line, 1.0, rung)

    def lose(self, line: str, loss_ratio: float, rung: str = "edge") -> None:
        """Let *line* lose a part of the answers from *rung* on. Raises ValueError, KeyError."""
        if not 0 <= loss_ratio <= 1:
            raise ValueError(f"loss_ratio: must be within 0 and 1, got {loss_ratio}")
        if rung not in RUNGS:
            raise ValueError(f"rung: must be one of {', '.join(RUNGS)}, got {rung!r}")
        self._faults[self._known(line)] = LineFault(rung, loss_ratio)

    def mend_line(self, line: str) -> None:
        """End what `break_line` or `lose` began. What was lost stays lost."""
        self._faults.pop(self._known(line), None)

    async def start(self) -> None:
        """Listen; harmless when it does so already. Raises OSError when a port of the last time is taken."""
        if self._servers:
            return
        for address, rung in self._places().items():
            server = await asyncio.get_running_loop().create_server(
                partial(_Call, self, rung), address, self._ports.get(address, 0)
            )
            self._servers.append(server)
            self._ports[address] = int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """End every call and refuse new ones; harmless when it does so already."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for call in tuple(self._calls):
            call.abort()
        for server in servers:
            await server.wait_closed()

    def answers(self, rung: str, source: str) -> bool:
        """Tell whether a call from *source* to *rung* is answered this time. A caller of no line is answered."""
        self.calls += 1
        if self.hq_dead and rung == "hq":
            return False
        fault = self._faults.get(self._by_source.get(source, ""))
        if fault is None or RUNGS.index(rung) < RUNGS.index(fault.rung):
            return True
        return self._random.random() >= fault.loss_ratio

    def hold(self, call: asyncio.Transport) -> None:
        """Note a call that is open."""
        self._calls.add(call)

    def let_go(self, call: asyncio.Transport) -> None:
        """Note that a call has ended."""
        self._calls.discard(call)

    def _known(self, line: str) -> str:
        if line not in self._lines:
            raise KeyError(f"there is no line {line}; known: {', '.join(self._lines)}")
        return line

    def _address(self, line: str, rung: str) -> str:
        ends = self._lines[self._known(line)]
        return {"cpe": ends.cpe, "edge": ends.edge, "hq": HQ_ADDRESS}[rung]

    def _places(self) -> dict[str, str]:
        return {self._address(line, rung): rung for line in self._lines for rung in RUNGS}


class _Call(asyncio.Protocol):
    """One call. The caller hangs up first, so that waiting out the end of the connection is on its side."""

    def __init__(self, ends: FarEnds, rung: str) -> None:
        self._ends = ends
        self._rung = rung
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the caller its source, or leave it without an answer."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a stream was expected, got {transport!r}")
        self._transport = transport
        self._ends.hold(transport)
        self._end = asyncio.get_running_loop().call_later(CALL_S, transport.abort)
        source = str(transport.get_extra_info("peername")[0])
        if self._ends.answers(self._rung, source):
            transport.write(f"{source}\n".encode("ascii"))

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the call."""
        if self._end is not None:
            self._end.cancel()
        if self._transport is not None:
            self._ends.let_go(self._transport)
