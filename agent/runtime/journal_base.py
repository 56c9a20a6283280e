"""What both journals share: the chain that grows, who is told what, and who waits for what."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import ChangeoverError
from agent.ports import Entry, JournalStore
from agent.runtime.journal_chain import BEFORE_ALL, EMPTY, Filled, Head, checkpoint_body, is_checkpoint, link

LOG: Final = logging.getLogger(__name__)


class JournalFull(ChangeoverError):
    """More records wait for the disk than the queue holds. Nothing of the refused call was taken."""


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """When a segment is full, how many records may wait for the disk, and from when on waiting is told."""

    segment_entries: int = 20_000
    segment_bytes: int = 4 * 1024 * 1024
    queue_entries: int = 10_000
    slow_s: float = 1.0


class ChainedJournal(ABC):
    """A journal without the writing: made and used on a running loop."""

    def __init__(
        self,
        store: JournalStore,
        head: Head = BEFORE_ALL,
        *,
        filled: Filled = EMPTY,
        limits: JournalLimits | None = None,
    ) -> None:
        self.limits = limits or JournalLimits()
        self._store = store
        self._head = head
        self._filled = filled
        self._durable_seq = head[0]
        self._loop = asyncio.get_running_loop()
        self._durable_callbacks: list[Callable[[int], None]] = []
        self._trouble_callbacks: list[Callable[[str], None]] = []
        self._troubles: dict[str, str] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def seq(self) -> int:
        """Return the number of the last record that was assigned."""
        return self._head[0]

    @property
    def head(self) -> Head:
        """Return number and digest of the last record that was assigned."""
        return self._head

    @property
    def durable_seq(self) -> int:
        """Return the highest number that was reported durable."""
        return self._durable_seq

    @property
    def trouble(self) -> str:
        """Return why records do not become durable, or soon may not; "" when all is well."""
        return "; ".join(self._troubles[name] for name in sorted(self._troubles))

    @property
    def checkpoint_due(self) -> bool:
        """Say whether the present segment is full and wants a checkpoint."""
        return (
            self._filled.entries >= self.limits.segment_entries or self._filled.size_bytes >= self.limits.segment_bytes
        )

    def append(self, bodies: Sequence[str]) -> int:
        """
        Assign number and digest to each of *bodies* (canonical JSON), hand them to the writer as one group that is
        durable as a whole or not at all, and return the last number. Never waits for the disk.

        Raises:
            JournalFull: too many records wait already.
            ValueError: a body looks like a checkpoint.
        """
        if any(map(is_checkpoint, bodies)):
            raise ValueError("a record may not begin like a checkpoint; use checkpoint()")
        self._filled = self._take(bodies, self._filled.plus(bodies))
        return self.seq

    def checkpoint(self, body: str) -> int:
        """Begin a new segment with the state *body* (canonical JSON); return its number. Raises JournalFull."""
        self._filled = self._take([checkpoint_body(body, self._head)], EMPTY)
        return self.seq

    def on_durable(self, callback: Callable[[int], None]) -> None:
        """Call *callback* on the loop with the highest durable number, each time that it has grown."""
        self._durable_callbacks.append(callback)

    def on_trouble(self, callback: Callable[[str], None]) -> None:
        """Call *callback* on the loop with the reason when records cannot be made durable, with "" when they can."""
        self._trouble_callbacks.append(callback)

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Wait until everything appended so far is durable. Raises TimeoutError."""
        if self._durable_seq >= self.seq:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((self.seq, future))
        async with asyncio.timeout(timeout_s):
            await future

    def _take(self, bodies: Sequence[str], filled: Filled) -> Filled:
        if self.seq - self._durable_seq + len(bodies) > self.limits.queue_entries:
            waiting = self.seq - self._durable_seq
            raise JournalFull(f"{waiting} records wait for the disk; {self.trouble or 'it is slow'}")
        entries = link(bodies, self._head)
        if entries:
            self._head = (entries[-1].seq, entries[-1].digest)
            self._hand_over(entries)
        return filled

    @abstractmethod
    def _hand_over(self, entries: tuple[Entry, ...]) -> None:
        """Give *entries* to what writes them."""

    def _became_durable(self, seq: int) -> None:
        self._durable_seq = seq
        self._settle("write", "")
        if seq >= self.seq:
            self._settle("slow", "")
        for wanted, future in self._waiting:
            if wanted <= seq and not future.done():
                future.set_result(None)
        self._waiting = [one for one in self._waiting if not one[1].done()]
        for callback in self._durable_callbacks:
            callback(seq)

    def _settle(self, name: str, reason: str) -> None:
        """Note trouble *name*, or with "" its end, and tell when that changes what is to be told."""
        before = self.trouble
        if reason:
            self._troubles[name] = reason
        else:
            self._troubles.pop(name, None)
        if self.trouble == before:
            return
        if self.trouble:
            LOG.warning("journal.trouble reason=%s", self.trouble)
        else:
            LOG.info("journal.well_again durable_seq=%d", self._durable_seq)
        for callback in self._trouble_callbacks:
            callback(self.trouble)
