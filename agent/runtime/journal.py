"""
The journal as the loop sees it: records get number and digest at once, and are reported when they are durable.

The loop never waits for the disk. A thread takes everything that is queued, makes it durable as one transaction and
tells the loop; what cannot be written stays queued and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from agent.ports import Entry, JournalStore
from agent.runtime.journal_base import ChainedJournal, JournalFull, JournalLimits
from agent.runtime.journal_chain import BEFORE_ALL, EMPTY, Filled, Head
from agent.runtime.journal_open import Opened, open_journal, set_aside
from agent.runtime.journal_verify import VerifyReport, verify

__all__ = [
    "InlineJournal",
    "Journal",
    "JournalFull",
    "JournalLimits",
    "Opened",
    "VerifyReport",
    "open_journal",
    "set_aside",
    "verify",
]

LOG: Final = logging.getLogger(__name__)
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
MAINTAIN_EVERY_S: Final = 10.0  # while nothing is written


@runtime_checkable
class Maintained(Protocol):
    """A store that has work of its own to do between commits."""

    def maintain(self) -> str:
        """Do some of it; return what a person must know, "" when nothing."""
        ...


class Journal(ChainedJournal):
    """
    The journal over a store, written by a thread of its own. Made, used and closed on a running loop.

    The store is used by that thread alone, from the first record to `close`.
    """

    def __init__(
        self,
        store: JournalStore,
        head: Head = BEFORE_ALL,
        *,
        filled: Filled = EMPTY,
        limits: JournalLimits | None = None,
    ) -> None:
        super().__init__(store, head, filled=filled, limits=limits)
        self._changed = threading.Condition()
        self._queue: deque[tuple[Entry, ...]] = deque()
        self._is_closing = False
        self._watch: asyncio.TimerHandle | None = None
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    async def close(self, timeout_s: float = 5.0) -> int:
        """Write what is queued, end the thread, close the store; return how many records did not become durable."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        await asyncio.wait([self._ended], timeout=timeout_s)
        if self._watch is not None:
            self._watch.cancel()
        lost = self.seq - self._durable_seq
        if lost or not self._ended.done():
            LOG.error("journal.closed_undurable records=%d reason=%s", lost, self.trouble or "the disk does not answer")
        return lost

    def _hand_over(self, entries: tuple[Entry, ...]) -> None:
        if self._watch is None:
            self._watch = self._loop.call_later(self.limits.slow_s, self._look_at_pace, self.seq)
        with self._changed:
            self._queue.append(entries)
            self._changed.notify()

    def _look_at_pace(self, seq: int) -> None:
        self._watch = None
        if self._durable_seq < seq:
            self._settle("slow", f"records wait for the disk for more than {self.limits.slow_s:g} s")
        if self._durable_seq < self.seq:
            self._watch = self._loop.call_later(self.limits.slow_s, self._look_at_pace, self.seq)

    # ------------------------------------------------------------ in the thread

    def _work(self) -> None:
        try:
            while True:
                group, is_last = self._next_group()
                if group and not self._write(group):
                    break  # what comes after a gap must not be written
                if is_last:
                    break
                self._maintain()
        except BaseException as error:  # whatever ends the writer, the loop must know that nothing is durable any more
            LOG.exception("journal.writer_died")
            self._tell(self._settle, "dead", f"the journal's writer died: {error!r}")
        finally:
            try:
                self._store.close()
            except OSError as error:
                LOG.warning("journal.close_failed error=%s", error)
            self._tell(self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _next_group(self) -> tuple[list[Entry], bool]:
        """Wait for records and return all that are queued; also whether these are the last."""
        with self._changed:
            if not self._queue and not self._is_closing:
                self._changed.wait(MAINTAIN_EVERY_S)
            group = [entry for entries in self._queue for entry in entries]
            self._queue.clear()
            return group, self._is_closing

    def _write(self, group: list[Entry]) -> bool:
        """Make *group* durable, trying until it is; False when we are asked to end before."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                self._store.append(group)
            except OSError as error:
                self._tell(self._settle, "write", f"records cannot be written: {error}")
            else:
                self._tell(self._became_durable, group[-1].seq)
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closing, pause_s):
                    return False
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _maintain(self) -> None:
        if not isinstance(self._store, Maintained):
            return
        try:
            reason = self._store.maintain()
        except OSError as error:
            reason = f"the journal cannot be kept within its bounds: {error}"
        self._tell(self._settle, "space", reason)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: there is nobody left to tell
            LOG.debug("journal.nobody_to_tell")


class InlineJournal(ChainedJournal):
    """
    The same without a thread, for virtual time: writes while it appends, reports from the loop's next pass.

    What the store raises beside OSError (a simulated crash) goes through to the caller of `append`.
    """

    def __init__(
        self,
        store: JournalStore,
        head: Head = BEFORE_ALL,
        *,
        filled: Filled = EMPTY,
        limits: JournalLimits | None = None,
    ) -> None:
        super().__init__(store, head, filled=filled, limits=limits)
        self._queue: deque[tuple[Entry, ...]] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._pause_s = RETRY_FIRST_S

    async def close(self, timeout_s: float = 5.0) -> int:
        """Try once more what is queued and close the store; return how many records did not become durable."""
        if self._retry is not None:
            self._retry.cancel()
            self._write(may_retry=False)
        lost = sum(map(len, self._queue))
        self._store.close()
        await asyncio.sleep(0)  # let the last report come through
        return lost

    def _hand_over(self, entries: tuple[Entry, ...]) -> None:
        self._queue.append(entries)
        if self._retry is None:
            self._write()

    def _write(self, *, may_retry: bool = True) -> None:
        self._retry = None
        while self._queue:
            try:
                self._store.append(self._queue[0])
            except OSError as error:
                self._loop.call_soon(self._settle, "write", f"records cannot be written: {error}")
                if may_retry:
                    self._retry = self._loop.call_later(self._pause_s, self._write)
                    self._pause_s = min(2 * self._pause_s, RETRY_MAX_S)
                return
            self._pause_s = RETRY_FIRST_S
            self._loop.call_soon(self._became_durable, self._queue.popleft()[-1].seq)
