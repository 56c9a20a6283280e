"""
Gives the journal as lines of JSON, for `changeover journal export`, and follows the chain while it does.

A line holds the record as it is in the journal, letter by letter, so that others can compute the chain anew: the digest is
SHA-256 over the digest before, a line feed, the number, a line feed, and the text after `"record":` up to the last brace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.errors import JournalBroken
from agent.ports import Entry
from agent.runtime.journal_chain import Walk, is_checkpoint
from agent.runtime.journal_file import DATABASE, READ_ERRORS, connect_reading, read_rows

CHECKPOINT_KIND: Final = "Checkpoint"


@dataclass(frozen=True, slots=True)
class Span:
    """Which records are wanted: by number and by UTC seconds, both ends included; None where there is no bound."""

    from_seq: int | None = None
    to_seq: int | None = None
    from_utc_s: float | None = None
    to_utc_s: float | None = None

    def holds(self, seq: int, utc_s: float | None) -> bool:
        """Tell whether record *seq* is wanted. *utc_s* is its time, None where it has none."""
        if (self.from_seq is not None and seq < self.from_seq) or (self.to_seq is not None and seq > self.to_seq):
            return False
        if self.from_utc_s is None and self.to_utc_s is None:
            return True
        if utc_s is None:
            return False
        early = self.from_utc_s is not None and utc_s < self.from_utc_s
        return not early and (self.to_utc_s is None or utc_s <= self.to_utc_s)


def exported(directory: Path, span: Span) -> Iterator[tuple[int, str]]:
    """
    Yield number and line of every record in *span*, as long as the chain holds.

    Raises:
        JournalBroken: the next record is missing or altered, or the database cannot be read.
    """
    walk: Walk | None = None
    utc_s: float | None = None  # of the record before: a checkpoint belongs to that moment
    try:
        with closing(connect_reading(directory / DATABASE)) as connection:
            for row in read_rows(connection, -(2**63)):
                walk = walk or Walk(max(row.seq, 1) if row is not None else 1)
                fault = walk.fault(row)
                if fault or row is None:
                    raise JournalBroken(walk.seq + 1, fault)
                walk.bodies.clear()
                at, utc_s, kind = told(row, utc_s)
                if span.holds(row.seq, utc_s):
                    yield row.seq, line(row, at, kind)
    except READ_ERRORS as error:
        raise JournalBroken(walk.seq + 1 if walk else 1, f"{DATABASE} cannot be read: {error}") from error


def told(row: Entry, before_utc_s: float | None) -> tuple[str | None, float | None, str]:
    """Return the UTC of a record as text (None for a checkpoint) and in seconds, and its kind."""
    if is_checkpoint(row.body):
        return None, before_utc_s, CHECKPOINT_KIND
    try:
        record = json.loads(row.body)
        utc_s, kind = float(record["at"]["utc_s"]), str(record["body"]["kind"])
        at = datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None, before_utc_s, "Unknown"  # the chain holds: a version wrote it that this one does not know
    return at, utc_s, kind


def line(row: Entry, at: str | None, kind: str) -> str:
    """Return one record as a line of JSON."""
    head = json.dumps({"seq": row.seq, "at": at, "kind": kind, "digest": row.digest}, separators=(",", ":"))
    return f'{head[:-1]},"record":{row.body}}}'
