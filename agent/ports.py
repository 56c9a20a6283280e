"""
The doors between the core's world and the outside: what a probe, an action, a journal store and a route table must offer.

Real ones, stand-ins and fakes all come through these doors, and a fake passes the same contract tests as the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.clock import Clock
from agent.core.model import Observation, Outcome, PointSpec, Request, Value


@dataclass(frozen=True, slots=True)
class Suspect:
    """A reading that was answered but contradicts itself: quality `suspect`, with the reason as its fault text."""

    value: Value
    reason: str


Readings = Mapping[str, Value | Suspect]  # point name within the equipment ("on_battery") -> value
Publish = Callable[[Sequence[Observation]], None]


@dataclass(frozen=True, slots=True)
class Lane:
    """One rhythm of a polled probe: which points it brings, how often, and when to give up waiting."""

    name: str
    period_s: float
    deadline_s: float
    points: tuple[str, ...]


class PolledProbe(Protocol):
    """
    A probe that is asked at a rhythm. The poller owns period, phase, deadline and back-off, turns readings into
    observations of good quality, and a ProbeFault into observations of unknown quality for every point of the lane.
    A point that is missing in the readings is one that the device does not have: nothing is observed of it.
    """

    equipment: str
    channel: str
    lanes: tuple[Lane, ...]
    specs: Mapping[str, PointSpec]

    async def poll(self, lane: str) -> Readings:
        """Return the readings of *lane*. A value may be wrapped in Suspect. Raises ProbeFault."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class StreamProbe(Protocol):
    """A probe that keeps its own rhythm and history, such as a line with its window; it publishes when it has news."""

    equipment: str
    channel: str
    specs: Mapping[str, PointSpec]

    async def run(self, publish: Publish) -> None:
        """Probe until cancelled, publishing at least once per period of each point and at once on change."""
        ...

    def look(self) -> None:
        """Ask again now (a burst), and publish the result as soon as it is settled."""
        ...


Probe = PolledProbe | StreamProbe


@dataclass(frozen=True, slots=True)
class ProbeKind:
    """
    One row of the PROBES table.

    `config` is a frozen dataclass with the site file's keys for this probe, `make(equipment, config, context)` builds the
    probe, `specs(config)` names its points without building it, `channel(config)` tells by which way its facts come.
    """

    name: str
    equipment_kinds: tuple[str, ...]
    config: type[Any]
    make: Callable[[str, Any, ProbeContext], Probe]
    specs: Callable[[Any], Mapping[str, PointSpec]]
    channel: Callable[[str, Any], str]


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """What a probe may need of its surroundings. `lines` maps a line's name to its config, for `path` and role groups."""

    clock: Clock
    lines: Mapping[str, Any]
    opener: Any = None  # drills and demo: stands for the host's own routing; None means the kernel's
    # Each line probe keeps its burst starter here while it runs: the first loss on one line asks all of them at once.
    bursts: list[Callable[[], None]] = field(default_factory=list)


class Action(Protocol):
    """A verb bound to this site. `perform` and `undo` are "make it so": harmless when it is so already."""

    async def perform(self, request: Request) -> str:
        """Do it; return one line saying what was done. Raises ActionFailed."""
        ...

    async def undo(self, request: Request) -> str:
        """Undo it; return one line saying what was done. Raises ActionFailed."""
        ...


@dataclass(frozen=True, slots=True)
class ActionKind:
    """
    One row of the ACTIONS table.

    `params` is a frozen dataclass of the step's words; `channel` is the way the command goes, which must differ from
    the way its proof comes. `expects(params, bind)` gives the wanted value of each point name a step may verify;
    `start(params, bind)` the value that proves that nothing has moved yet. `resendable`: harmless to send twice.
    """

    name: str
    params: type[Any]
    channel: str
    resendable: bool
    make: Callable[[ActionContext], Action]
    expects: Callable[[Any, Mapping[str, str]], Mapping[str, Value]]
    start: Callable[[Any, Mapping[str, str]], Mapping[str, Value]]


@dataclass(frozen=True, slots=True)
class ActionContext:
    """What an action may need: the lines of the site by name, and the route table behind its own door."""

    lines: Mapping[str, Any]
    routes: RouteTable


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the host. `ours` tells a route that this program added (by its protocol number)."""

    destination: str
    gateway: str
    interface: str
    metric: int
    ours: bool


class RouteTable(Protocol):
    """The host's main route table."""

    async def routes(self, destination: str) -> tuple[Route, ...]:
        """Return the routes for exactly *destination* ("default" or a prefix), best metric first. Raises ActionFailed."""
        ...

    async def add(self, route: Route) -> None:
        """Add *route* as ours. Adding the same route again changes nothing. Raises ActionFailed."""
        ...

    async def remove(self, route: Route) -> None:
        """Remove *route*, which must be ours. Removing it again changes nothing. Raises ActionFailed."""
        ...

    async def forget_connections(self, translated_source: str) -> int:
        """
        Drop connection-tracking entries whose translated source is this address, or any address of the interface of
        this name; return how many. Without address translation there are none.
        """
        ...


class Executor(Protocol):
    """The door through which commands leave."""

    async def perform(self, request: Request) -> tuple[Outcome, str]:
        """
        Accept durably, perform, record, answer. A key that has a result is answered from the record.

        Calls `accepted(key)` of its owner once the acceptance is durable.
        """
        ...

    async def outcome(self, key: str) -> tuple[Outcome, str]:
        """Return what became of *key*: DONE, FAILED, REFUSED, UNCERTAIN or NEVER, with the detail."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the journal as stored: its number, its body as canonical JSON, and the chain digest (hex SHA-256)."""

    seq: int
    body: str
    digest: str


class JournalStore(Protocol):
    """
    Where journal entries are kept. A commit that returns is durable: file, head slot and all.

    Production: SQLite in one thread. Virtual time: a simulated disk.
    """

    def append(self, entries: Sequence[Entry]) -> None:
        """Make *entries* durable, all or nothing, in order. Raises OSError when it cannot."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
