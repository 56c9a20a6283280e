"""
A simulated disk behind the journal's door, for virtual time: what was durable survives, and it can fail on request.

It keeps the same promise as the real store and judges what it holds by the same rules, so that a crash between any two
records, a full disk and a torn tail can be lived through in microseconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.ports import Entry
from agent.runtime.journal_chain import BEFORE_ALL, EMPTY, Filled, Head, check_tail, is_checkpoint

NOTHING: Final[Mapping[int, int]] = {}


class Crash(BaseException):
    """The simulated process ends here. Not an Exception, so that nothing on the way takes it for an error."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        super().__init__(f"crash with record {seq} durable")


@dataclass(frozen=True, slots=True)
class SimFaults:
    """
    What goes wrong. Appends are counted from 1 over the disk's life, failed ones too; records by their number.

    `failing` gives the errno of an append (as in {3: errno.ENOSPC}); `full_from` lets every append from that one on
    fail with `full_errno` until the faults are changed. `crash_at` ends the process once that record is durable
    (with the rest of its group: a group is durable as a whole). `torn_at` ends it in the middle of the group with that
    record: the group is there, damaged from that record on, and the head was not written.
    """

    failing: Mapping[int, int] = field(default_factory=lambda: NOTHING)
    full_from: int | None = None
    full_errno: int = errno.ENOSPC
    crash_at: int | None = None
    torn_at: int | None = None


@dataclass(frozen=True, slots=True)
class SimOpened:
    """What a disk gives back after a start: the same as a journal on a real disk."""

    store: SimStore
    head: Head
    checkpoint: str | None
    bodies: tuple[str, ...]
    cut: str | None = None
    filled: Filled = EMPTY


class SimDisk:
    """Durable entries and head. `faults` may be changed at any time; a crash or a tear happens once."""

    def __init__(self, faults: SimFaults | None = None) -> None:
        self.faults = faults or SimFaults()
        self.entries: list[Entry] = []
        self.head: Head = BEFORE_ALL
        self.appends = 0
        self._store: SimStore | None = None

    def open(self) -> SimOpened:
        """
        Start again from what was durable; a store opened before is dead.

        Raises:
            JournalBroken: what is there does not agree with the head.
        """
        starts = [entry.seq for entry in self.entries if is_checkpoint(entry.body) and entry.seq <= self.head[0]]
        first_seq = max(starts, default=1)
        tail = check_tail((entry for entry in self.entries if entry.seq >= first_seq), self.head, first_seq)
        if tail.cut_from is not None:
            self.lose_from(tail.cut_from)
        self.head = tail.head
        self._store = SimStore(self)
        return SimOpened(self._store, tail.head, tail.checkpoint, tail.bodies, tail.cut, tail.filled)

    def lose_from(self, seq: int) -> None:
        """Lose the records from *seq* on without a word; the head stays what it is."""
        self.entries = [entry for entry in self.entries if entry.seq < seq]

    def damage(self, seq: int) -> None:
        """Alter the body of record *seq*."""
        self.entries = [Entry(one.seq, one.body + "~", one.digest) if one.seq == seq else one for one in self.entries]

    def is_owned_by(self, store: SimStore) -> bool:
        """Say whether *store* is the one opened last."""
        return self._store is store

    def append(self, entries: Sequence[Entry]) -> None:
        """Keep *entries*, or fail as the faults say. Raises OSError, Crash."""
        self.appends += 1
        faults = self.faults
        number = faults.failing.get(self.appends)
        if number is None and faults.full_from is not None and self.appends >= faults.full_from:
            number = faults.full_errno
        if number is not None:
            raise OSError(number, os.strerror(number))
        last = entries[-1]
        held = len(self.entries) and self.entries[-1].seq
        fresh = [entry for entry in entries if entry.seq > held]
        if faults.torn_at is not None and held < faults.torn_at <= last.seq:
            self.faults = SimFaults()
            self.entries += fresh
            self.damage(faults.torn_at)
            raise Crash(faults.torn_at - 1)
        self.entries += fresh
        self.head = (last.seq, last.digest)
        if faults.crash_at is not None and held < faults.crash_at <= last.seq:
            self.faults = SimFaults()
            raise Crash(last.seq)


class SimStore:
    """The journal's store on a simulated disk."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk

    def append(self, entries: Sequence[Entry]) -> None:
        """Make *entries* durable, all or nothing. Raises OSError; Crash where the disk's faults want it."""
        if not self.disk.is_owned_by(self):
            raise OSError(errno.EBADF, "this store belongs to a process that has ended")
        self.disk.append(entries)

    def close(self) -> None:
        """Nothing to let go of."""
