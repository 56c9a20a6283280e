"""A loop for the edge: the real core, driven by hand, without queue and without disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.model import At, Event
from agent.core.records import Record
from agent.core.site import Site
from agent.core.state import State
from agent.runtime.loop import JournalView
from tests.fakes.sites import Driver

SOUND = JournalView(seq=5, durable_seq=5, head="ab", durable=True, reason="", cut=None, safe_reason=None)


@dataclass
class DriverClock:
    """Tells the driver's time."""

    driver: Driver

    def now(self) -> At:
        return self.driver.at()


@dataclass
class Desk:
    """What the edge sees of a loop. `fails` is raised by the next `ask`."""

    driver: Driver
    journal_view: JournalView = SOUND
    passes: int = 1
    events: int = 1
    violation: str | None = None
    fails: Exception | None = None
    asked: list[Event] = field(default_factory=list)
    listeners: list[Callable[[Record], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = DriverClock(self.driver)
        self.last_pass_s = self.driver.now_s

    @property
    def site(self) -> Site:
        return self.driver.site

    @property
    def state(self) -> State:
        return self.driver.state

    def backlog(self) -> int:
        return 0

    def on_record(self, listen: Callable[[Record], None]) -> None:
        self.listeners.append(listen)

    async def ask(self, event: Event) -> tuple[Record, ...]:
        self.asked.append(event)
        records = self.driver.send(event).records
        if self.fails is not None:
            raise self.fails
        return records

    async def reread(self, owner: str) -> dict[str, object]:
        return {"ok": True, "owner": owner}

    def tell(self) -> None:
        """Bring the driver's records so far to the listeners."""
        for record in self.driver.records:
            for listen in self.listeners:
                listen(record)
