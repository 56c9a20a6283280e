"""
The single writer: owns the state, takes one event after the other, and lets effects leave when their records are durable.

Pollers, executor, people and deadlines only send events. The loop never waits for the disk: effects carry the number of
the last record of their step and leave when the journal reports that number durable. At that moment they are asked once
more whether they may (`engine.why_not_leave`); if not, the core is told and the step asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from agent.clock import Clock
from agent.core import invariants
from agent.core.engine import Stepped, next_deadline_s, step, why_not_leave
from agent.core.model import (
    AskOutcome,
    At,
    CommandEnded,
    CommandSent,
    Effect,
    Event,
    EvidenceExpired,
    HoldAsked,
    JournalHealth,
    Look,
    Observation,
    Observed,
    Outcome,
    Perform,
    PointId,
    Request,
    Started,
    Ticked,
)
from agent.core.records import ConfigRefused, Record, SiteReloaded
from agent.core.reload import SiteChange, refused, reloaded, why_not_reload
from agent.core.sight import see
from agent.core.site import Site
from agent.core.state import State
from agent.errors import InvariantViolation
from agent.ports import Executor
from agent.runtime.codec import canonical
from agent.runtime.inbox import Inbox
from agent.runtime.journal_base import ChainedJournal, JournalFull
from agent.runtime.sentinel import Sentinel

TICK_S: Final = 1.0  # the loop looks over everything at least so often
EVENTS_PER_PASS: Final = 64  # then other tasks get their turn
TIMER_SLACK_S: Final = 1e-6  # a timer may fire by a rounding error too early: then the loop must not turn on the spot

log = logging.getLogger(__name__)

Listen = Callable[[Record], None]
Reread = Callable[[str], Awaitable[Any]]  # who asks -> what became of it


class Looker(Protocol):
    """Who can pull probes forward."""

    def look(self, points: Sequence[PointId], not_before: float, until: float) -> None:
        """Ask for *points* again and again between these boot seconds."""
        ...


@dataclass(frozen=True, slots=True)
class JournalView:
    """How the journal stands, for people and metrics. `cut`: what was lost as a torn tail at start, None for nothing."""

    seq: int
    durable_seq: int
    head: str
    durable: bool
    reason: str
    cut: str | None
    safe_reason: str | None


class Loop:
    """One engine with its state, its journal and its doors."""

    def __init__(
        self, site: Site, state: State, journal: ChainedJournal, clock: Clock, *, cut: str | None = None
    ) -> None:
        self.site = site
        self.state = state
        self.clock = clock
        self.passes = 0
        self.last_pass_s = 0.0
        self.events = 0
        self.violation: str | None = None
        self._journal = journal
        self._cut = cut
        self._inbox = Inbox()
        self._wake = asyncio.Event()
        self._sentinel = Sentinel()
        self._due_loop_s = float("inf")
        self._last_tick_s = float("-inf")
        self._waiting: deque[tuple[int, Effect]] = deque()
        self._asked: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._listeners: list[Listen] = []
        self._put_off: list[Event] = []  # what could not be decided because it could not have been remembered
        self._is_full = False
        self._commands: set[asyncio.Task[None]] = set()
        self._executor: Executor | None = None
        self._looker: Looker | None = None
        self._reread: Reread | None = None
        journal.on_durable(self._durable)
        journal.on_trouble(lambda reason: self.send(JournalHealth(not reason, reason)))

    def connect(self, executor: Executor, looker: Looker) -> None:
        """Open the doors; before this, effects wait."""
        self._executor = executor
        self._looker = looker
        self._release()

    def on_reread(self, reread: Reread) -> None:
        """Let *reread* read the site file anew when somebody asks for it."""
        self._reread = reread

    def on_record(self, listen: Listen) -> None:
        """Call *listen* with every record, once, when it has been decided."""
        self._listeners.append(listen)

    # ------------------------------------------------------------ in

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take what a probe saw."""
        self._inbox.observe(observations)
        self._wake.set()

    def send(self, event: Event) -> None:
        """Take an event."""
        self._inbox.put(event)
        self._wake.set()

    def accepted(self, key: str) -> None:
        """Take the executor's word that it has durably accepted a request."""
        self.send(CommandSent(key))

    async def ask(self, event: Event, timeout_s: float = 5.0) -> tuple[Record, ...]:
        """
        Do what a person asks for, now, and return the records that came of it, once they are durable.

        Raises TimeoutError when the journal does not become durable in time; the event has been taken all the same.
        """
        records = self._step(event, self.clock.now())
        self._wake.set()
        if event in self._put_off:
            raise TimeoutError(f"it cannot be remembered now: {self.state.volatile.journal_reason}")
        await self._until_durable(timeout_s)
        return records

    async def _until_durable(self, timeout_s: float) -> None:
        """Wait until all that has been decided so far is on disk. Raises TimeoutError."""
        if self._journal.durable_seq < self._journal.seq:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._asked.append((self._journal.seq, future))
            async with asyncio.timeout(timeout_s):
                await future

    async def reread(self, owner: str, timeout_s: float = 5.0) -> Any:
        """Have the site file read anew, as *owner* asks; return what became of it. Raises TimeoutError as `ask` does."""
        if self._reread is None:
            raise RuntimeError("nobody reads the site file of this loop")
        answer = await self._reread(owner)
        await self._until_durable(timeout_s)
        return answer

    def reload(self, site: Site, record: SiteReloaded, change: SiteChange) -> tuple[str, ...]:
        """
        Take *site* in place of the one before, in one step, after all that was seen under that one; return why not, and
        nothing when it is done. Its records become durable as any others do.
        """
        now, old = self.clock.now(), self.site
        while (event := self._inbox.take()) is not None:
            self._step(event, now)
        reasons = why_not_reload(self.state.durable, old, site, change.lines)
        if reasons:
            return reasons
        stepped = reloaded(old, site, self.state, record, change.points, now)
        try:
            invariants.check(site, self.state, Ticked(), stepped, now)
        except InvariantViolation as violation:
            log.critical("reload.would_break rule=%s detail=%s", violation.rule, violation)
            return (f"it would break an internal rule: {violation}",)
        self.site = site  # those who listen to the records look things up in it
        if not self._take(stepped, Ticked(), now):
            self.site = old
            return (f"it cannot be remembered now: {self.state.volatile.journal_reason}",)
        self._wake.set()
        return ()

    def refuse_reload(self, record: ConfigRefused) -> None:
        """Remember that a site file was not taken."""
        now = self.clock.now()
        self._take(refused(self.site, self.state, record, now), Ticked(), now)

    @property
    def journal_view(self) -> JournalView:
        """Return how the journal stands."""
        seq, head = self._journal.head
        trouble = self._journal.trouble
        durable = self._journal.durable_seq
        return JournalView(seq, durable, head, not trouble, trouble, self._cut, self.state.volatile.safe_reason)

    def backlog(self) -> int:
        """Return how many events wait."""
        return len(self._inbox)

    # ------------------------------------------------------------ the pass

    async def run(self, started: Started) -> None:
        """Take events until cancelled. *started* comes first."""
        self._step(started, self.clock.now())
        loop = asyncio.get_running_loop()
        while True:
            now = self.clock.now()
            for event in self._sentinel.look(now, loop.time(), self._due_loop_s):
                log.warning("time.moved event=%r", event)
                self._step(event, now)
            self._take_events(now)
            self.passes += 1
            self.last_pass_s = now.boot_s
            await self._rest(loop)

    def _take_events(self, now: At) -> None:
        taken = 0
        while taken < EVENTS_PER_PASS and (event := self._inbox.take()) is not None:
            self._step(event, now)
            taken += 1
        deadline = next_deadline_s(self.state)
        if self._tick_is_due(now) or (deadline is not None and deadline <= now.boot_s):
            self._step(Ticked(), now)
            self._last_tick_s = now.boot_s

    def _tick_is_due(self, now: At) -> bool:
        return now.boot_s - self._last_tick_s >= TICK_S

    async def _rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for an event, a deadline, or the next tick, whichever is first."""
        if len(self._inbox):
            self._due_loop_s = loop.time()
            await asyncio.sleep(0)
            return
        now_s = self.clock.now().boot_s
        wait_s = max(0.0, self._last_tick_s + TICK_S - now_s)
        deadline = next_deadline_s(self.state)
        if deadline is not None and deadline > now_s:
            wait_s = min(wait_s, deadline - now_s)
        wait_s = max(wait_s, TIMER_SLACK_S)
        self._due_loop_s = loop.time() + wait_s
        self._wake.clear()
        timer = loop.call_later(wait_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _step(self, event: Event, now: At) -> tuple[Record, ...]:
        """Take one event: decide, check what must always hold, remember, and queue what has to be done."""
        before = self.state
        stepped = step(self.site, before, event, now)
        try:
            invariants.check(self.site, before, event, stepped, now)
        except InvariantViolation as violation:
            return self._refuse(violation, now)
        return self._take(stepped, event, now)

    def _refuse(self, violation: InvariantViolation, now: At) -> tuple[Record, ...]:
        """We were about to do wrong: nothing of that step is taken, and the agent goes on hold."""
        log.critical("invariant.violated rule=%s detail=%s", violation.rule, violation)
        self.violation = str(violation)
        if self.state.durable.hold is not None:
            return ()
        hold = HoldAsked("changeover", f"internal rule {violation}", False, None)
        return self._take(step(self.site, self.state, hold, now), hold, now)

    def _take(self, stepped: Stepped, event: Event, now: At) -> tuple[Record, ...]:
        self.events += 1
        if stepped.records:
            try:
                seq = self._journal.append([canonical(record) for record in stepped.records])
            except JournalFull as full:
                self._decide_later(event, now, str(full))
                return ()
            self._waiting.extend((seq, effect) for effect in stepped.effects)
        self.state = stepped.state
        if self._journal.checkpoint_due:
            self._checkpoint()
        for record in stepped.records:
            for listen in self._listeners:
                listen(record)
        return stepped.records

    def _decide_later(self, event: Event, now: At, reason: str) -> None:
        """What cannot be remembered is not decided: what was seen stays seen, and anything else comes again later."""
        seen = see(self.site, self.state, event, now).volatile if isinstance(event, Observed) else self.state.volatile
        self.state = replace(self.state, volatile=replace(seen, journal_durable=False, journal_reason=reason))
        self._is_full = True
        if not isinstance(event, Observed | Ticked | JournalHealth):
            self._put_off.append(event)

    def _checkpoint(self) -> None:
        try:
            self._journal.checkpoint(canonical(self.state.durable))
        except JournalFull:
            log.debug("journal.checkpoint_later")  # it stays due, and comes with a later step

    # ------------------------------------------------------------ out

    def _durable(self, seq: int) -> None:
        while self._asked and self._asked[0][0] <= seq:
            future = self._asked.popleft()[1]
            if not future.done():
                future.set_result(None)
        if self._is_full and not self._journal.trouble:
            self._is_full = False
            self._inbox.put_back([JournalHealth(True), *self._put_off])
            self._put_off.clear()
            self._wake.set()
        self._release()

    def _release(self) -> None:
        """Let the effects go whose records are durable."""
        if self._executor is None:
            return
        while self._waiting and self._waiting[0][0] <= self._journal.durable_seq:
            self._do(self._waiting.popleft()[1])

    def _do(self, effect: Effect) -> None:
        match effect:
            case Perform():
                self._perform(effect.request)
            case AskOutcome():
                self._start(self._ask_outcome(effect.key), f"ask {effect.key}")
            case Look() if self._looker is not None:
                self._looker.look(effect.points, effect.not_before, effect.until)

    def _perform(self, request: Request) -> None:
        reason = why_not_leave(self.site, self.state, request, self.clock.now())
        if reason is not None:
            log.warning("command.withheld key=%s reason=%s", request.key, reason)
            self.send(EvidenceExpired(request.key))
            return
        self._start(self._command(request), f"command {request.key}")

    def _start(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    @property
    def _doors(self) -> Executor:
        if self._executor is None:
            raise RuntimeError("the loop is not connected to an executor")
        return self._executor

    async def _command(self, request: Request) -> None:
        try:
            outcome, detail = await self._doors.perform(request)
        except OSError as error:
            outcome, detail = Outcome.UNCERTAIN, f"the executor's record: {error}"
        log.info("command.ended key=%s outcome=%s detail=%s", request.key, outcome, detail)
        self.send(CommandEnded(request.key, outcome, detail))

    async def _ask_outcome(self, key: str) -> None:
        outcome, detail = await self._doors.outcome(key)
        log.info("command.asked key=%s outcome=%s", key, outcome)
        self.send(CommandEnded(key, outcome, detail))
