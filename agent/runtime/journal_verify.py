"""Looks through the whole journal without changing anything, for `changeover journal verify`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.ports import Entry
from agent.runtime.journal_chain import BEFORE_ALL, Walk
from agent.runtime.journal_file import (
    DATABASE,
    HEAD,
    READ_ERRORS,
    connect_reading,
    first_page_fault,
    read_rows,
    segment_starts,
)
from agent.runtime.journal_head import HeadFile, read_head

PROBLEMS_MAX: Final = 20
HEAD_READS: Final = 3  # a running agent may be writing a slot at the moment that we read it


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. `entries` counts sound records from `first_seq` on; `problems` are sentences."""

    entries: int
    segments: int
    first_seq: int | None
    last_seq: int | None
    head_seq: int | None
    after_head: int
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Say whether there is no problem."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    walk: Walk | None = None
    first_seq: int | None = None
    digests: dict[int, str] = field(default_factory=dict)  # those that the head's slots speak of
    entries: int = 0
    problems: list[str] = field(default_factory=list)


def verify(directory: Path) -> VerifyReport:
    """
    Check every record, the segments, the database's structure and the head. Safe beside a running agent.

    Raises:
        OSError: the directory cannot be read.
    """
    held = _read_head(directory / HEAD)  # before the records: those may only be further than the head, never behind
    found = _Findings()
    _check_head(held, found.problems)
    path = directory / DATABASE
    if path.exists() and path.stat().st_size:
        _check_database(path, held, found)
    elif held is not None and held.newest is not None and held.newest.head != BEFORE_ALL:
        found.problems.append(f"{DATABASE} is missing")
    last_seq = found.walk.seq if found.walk and found.entries else None
    _compare(held, found, last_seq or 0)
    head_seq = held.newest.head[0] if held and held.newest else None
    return VerifyReport(
        entries=found.entries,
        segments=len(found.walk.checkpoint_seqs) + (found.first_seq == 1) if found.walk else 0,
        first_seq=found.first_seq,
        last_seq=last_seq,
        head_seq=head_seq,
        after_head=max(0, (last_seq or 0) - head_seq) if head_seq is not None else 0,
        problems=tuple(found.problems[:PROBLEMS_MAX]),
    )


def _read_head(path: Path) -> HeadFile | None:
    held = read_head(path)
    for _ in range(HEAD_READS):
        if held is None or (all(held.slots) and held.is_clean):
            break
        held = read_head(path)
    return held


def _check_head(held: HeadFile | None, problems: list[str]) -> None:
    if held is None:
        return
    problems += [f"slot {number} of {HEAD} cannot be read" for number, slot in enumerate(held.slots) if slot is None]
    if not held.is_clean:
        problems.append(f"{HEAD} holds something beside its slots")
    first, second = held.slots
    if first and second and abs(first.generation - second.generation) != 1:
        problems.append(f"the slots of {HEAD} do not follow each other")


def _check_database(path: Path, held: HeadFile | None, found: _Findings) -> None:
    wanted = {slot.head[0] for slot in held.slots if slot} if held else set()
    try:
        with closing(connect_reading(path)) as connection:
            connection.execute("BEGIN")  # one moment for all that follows, also beside a running agent
            if fault := first_page_fault(path, connection):
                found.problems.append(fault)
                return
            starts = segment_starts(connection)
            _walk(connection, wanted, found)
            sqlite_says = [_text(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
            found.problems += [f"{DATABASE}: {line}" for line in sqlite_says if line != "ok"]
    except READ_ERRORS as error:
        found.problems.append(f"{DATABASE} cannot be read: {error}")
        return
    walk = found.walk
    checkpoints = walk.checkpoint_seqs if walk else []
    told = sorted({*checkpoints, *([1] if found.first_seq == 1 else [])})
    if starts != told and not found.problems:
        found.problems.append(f"the list of segments {starts} is not that of the records {told}")


def _walk(connection: sqlite3.Connection, wanted: set[int], found: _Findings) -> None:
    """Walk along all records; after a fault go on behind it, so that the report tells of each."""
    for row in read_rows(connection, -(2**63)):
        if found.walk is None:
            found.first_seq = row.seq if row else 1
            found.walk = Walk(max(found.first_seq, 1))
        fault = found.walk.fault(row)
        if not fault:
            found.entries += 1
        else:
            if len(found.problems) < PROBLEMS_MAX:
                found.problems.append(fault)
            _step_over(found.walk, row)
        if found.walk.seq in wanted:
            found.digests[found.walk.seq] = found.walk.digest or ""
        found.walk.bodies.clear()


def _step_over(walk: Walk, row: Entry | None) -> None:
    walk.seq, walk.digest = (row.seq, row.digest) if row else (walk.seq + 1, walk.digest or "")


def _compare(held: HeadFile | None, found: _Findings, last_seq: int) -> None:
    """Hold the records against both slots of the head."""
    if held is None:
        if found.entries:
            found.problems.append(f"{HEAD} is missing")
        return
    for number, slot in enumerate(held.slots):
        if slot is None or slot.head == BEFORE_ALL:
            continue
        seq, digest = slot.head
        if seq > last_seq:
            found.problems.append(f"the journal ends at record {last_seq}, slot {number} of the head says {seq}")
        elif found.digests.get(seq) != digest:
            found.problems.append(f"record {seq} is another one than slot {number} of the head says")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
