"""
points.db: the history of every point, on change beyond its deadband and once a minute, for seven days.

History may be lost, records may not: this file is never waited for, its buffer drops the oldest when the disk does not
keep up, and a damaged file is put aside and begun anew.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.clock import Clock
from agent.core.model import Observation, PointId, PointSpec, Quality, Value
from agent.runtime.journal_file import connect_reading, connect_writing, disk_errors, surroundings_errno
from agent.runtime.state_dir import RESERVE_BYTES

LOG: Final = logging.getLogger(__name__)
DATABASE: Final = "points.db"
MIB: Final = 1024 * 1024
INTEGER_MAX: Final = 2**63 - 1
DAY_S: Final = 86_400.0
# One b-tree in the order in which it is read: all of one point, by time. Times are UTC milliseconds.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS points(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS samples(
    point INTEGER NOT NULL, at_ms INTEGER NOT NULL, value, quality TEXT NOT NULL, fault TEXT,
    PRIMARY KEY(point, at_ms)
) WITHOUT ROWID;
"""
INSERT: Final = "INSERT OR REPLACE INTO samples(point, at_ms, value, quality, fault) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class PointLimits:
    """How much is kept, and how often the disk is touched."""

    keep_s: float = 7 * DAY_S
    size_bytes: int = 48 * MIB
    log_bytes: int = 4 * MIB
    every_s: float = 60.0  # a point that does not change is kept this often
    flush_s: float = 2.0
    buffer_rows: int = 20_000
    trim_every_s: float = 600.0
    leave_free_bytes: int = 2 * RESERVE_BYTES  # what is left of a full disk belongs to the journal


@dataclass(frozen=True, slots=True)
class Sample:
    """One kept reading: UTC seconds, value (a bool reads as 0 or 1), quality, and what hid the value."""

    at_utc_s: float
    value: Value
    quality: Quality
    fault: str | None


@dataclass(frozen=True, slots=True)
class _Row:
    point: PointId
    sample: Sample


class PointStore:
    """
    The writer of points.db in *directory*. `offer` is called on the loop and never waits; a thread writes.

    `specs` gives the deadbands; a point without one is kept on every change. `dropped` counts rows that were lost
    because the disk did not keep up. Raises OSError when the file cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        specs: Mapping[PointId, PointSpec] | None = None,
        limits: PointLimits | None = None,
    ) -> None:
        self.path = directory / DATABASE
        self.limits = limits or PointLimits()
        self.dropped = 0
        self.trouble = ""
        self._clock = clock
        self._deadbands: dict[PointId, float] = {}
        self._kept: dict[PointId, Observation] = {}
        self.know(specs or {})
        self._buffer: deque[_Row] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._ids: dict[str, int] = {}
        self._trim_at = 0.0
        _begin(self.path)
        self._thread = threading.Thread(target=self._work, name="points", daemon=True)
        self._thread.start()

    def know(self, specs: Mapping[PointId, PointSpec]) -> None:
        """Keep points by the deadbands of *specs* from now on."""
        self._deadbands = {point: spec.deadband for point, spec in specs.items()}
        self._kept = {point: last for point, last in self._kept.items() if point in specs}

    def offer(self, observations: Sequence[Observation]) -> None:
        """Keep those of *observations* that say something new, or are due. Never waits for the disk."""
        kept = [one for one in observations if self._is_worth_keeping(one)]
        if not kept:
            return
        now = self._clock.now()
        utc_of_boot_s = now.utc_s - now.boot_s
        rows = [
            _Row(one.point, Sample(utc_of_boot_s + one.answered_at, one.value, one.quality, one.fault)) for one in kept
        ]
        with self._changed:
            self._buffer.extend(rows)
            while len(self._buffer) > self.limits.buffer_rows:
                self._buffer.popleft()
                self.dropped += 1

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is buffered and end the thread; waits for the disk, at most *timeout_s*."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            LOG.warning("points.closed_unwritten rows=%d", len(self._buffer))

    def _is_worth_keeping(self, new: Observation) -> bool:
        old = self._kept.get(new.point)
        if old is None or _has_moved(old, new, self._deadbands.get(new.point, 0.0)):
            self._kept[new.point] = new
            return True
        if new.answered_at - old.answered_at >= self.limits.every_s:
            self._kept[new.point] = new
            return True
        return False

    # ------------------------------------------------------------ in the thread

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            with self._changed:
                is_last = self._changed.wait_for(lambda: self._is_closing, self.limits.flush_s)
            try:
                with disk_errors("keep points"):
                    if connection is None:
                        connection = connect_writing(self.path, synchronous="NORMAL")
                        self._ids = dict(connection.execute("SELECT name, id FROM points"))
                    self._refuse_last_space()
                    self._flush(connection)
                    self._tidy(connection)
                self._settle("")
            except OSError as error:
                self._settle(str(error))
                _drop(connection)  # also ends a transaction that was begun
                connection = None
            if is_last:
                break
        _drop(connection)

    def _refuse_last_space(self) -> None:
        space = os.statvfs(self.path.parent)
        if space.f_bavail * space.f_frsize < self.limits.leave_free_bytes:
            raise OSError(errno.ENOSPC, f"less than {self.limits.leave_free_bytes // MIB} MiB are free")

    def _settle(self, trouble: str) -> None:
        """Tell a trouble once when it comes and once when it has gone."""
        if trouble and not self.trouble:
            LOG.warning("points.not_kept reason=%s", trouble)
        elif self.trouble and not trouble:
            LOG.info("points.kept_again dropped=%d", self.dropped)
        self.trouble = trouble

    def _flush(self, connection: sqlite3.Connection) -> None:
        with self._changed:
            rows = list(self._buffer)
        if not rows:
            return
        connection.execute("BEGIN IMMEDIATE")
        known = dict(self._ids)
        for name in {row.point for row in rows} - known.keys():
            known[name] = connection.execute("INSERT INTO points(name) VALUES (?)", (name,)).lastrowid or 0
        connection.executemany(INSERT, (_columns(known, row) for row in rows))
        connection.execute("COMMIT")
        self._ids = known
        written = {id(row) for row in rows}
        with self._changed:  # what was dropped meanwhile is gone from the left already
            while self._buffer and id(self._buffer[0]) in written:
                self._buffer.popleft()

    def _tidy(self, connection: sqlite3.Connection) -> None:
        log = self.path.with_name(f"{DATABASE}-wal")
        if log.exists() and log.stat().st_size > self.limits.log_bytes:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        now = self._clock.now()
        if now.boot_s < self._trim_at:
            return
        self._trim_at = now.boot_s + self.limits.trim_every_s
        self._forget_before(connection, now.utc_s - self.limits.keep_s)
        for share in (0.1, 0.2, 0.4):  # each time a larger part of what is there, oldest first
            if _used_bytes(connection) <= self.limits.size_bytes:
                break
            oldest, newest = connection.execute("SELECT min(at_ms), max(at_ms) FROM samples").fetchone()
            self._forget_before(connection, (oldest + share * (newest - oldest)) / 1000)

    def _forget_before(self, connection: sqlite3.Connection, utc_s: float) -> None:
        for point in self._ids.values():  # one short transaction each, so that the log stays short
            connection.execute("DELETE FROM samples WHERE point = ? AND at_ms < ?", (point, int(utc_s * 1000)))


def read_points(
    directory: Path, point: PointId, since_utc_s: float = 0.0, until_utc_s: float = float(2**40)
) -> Iterator[Sample]:
    """Yield what was kept of *point*, oldest first; safe beside the writer. Raises OSError."""
    query = (
        "SELECT at_ms, value, quality, fault FROM samples WHERE point = (SELECT id FROM points WHERE name = ?)"
        " AND at_ms BETWEEN ? AND ? ORDER BY at_ms"
    )
    with disk_errors("read points"), closing(connect_reading(directory / DATABASE)) as connection:
        connection.text_factory = str
        for at_ms, value, quality, fault in connection.execute(
            query, (point, int(since_utc_s * 1000), int(until_utc_s * 1000))
        ):
            yield Sample(at_ms / 1000, value, Quality(quality), fault)


def _begin(path: Path) -> None:
    """Make the file, or put a damaged one aside and begin anew: history is worth less than an agent that starts."""
    try:
        _make(path)
    except sqlite3.DatabaseError as error:
        code = surroundings_errno(error)
        if code is not None:
            raise OSError(code, f"open {path.name}: {error}") from error
        LOG.warning("points.set_aside reason=%s", error)
        path.replace(path.with_name(f"{DATABASE}.broken"))
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        with disk_errors(f"begin {path.name}"):
            _make(path)


def _make(path: Path) -> None:
    with closing(connect_writing(path, synchronous="NORMAL")) as connection:
        connection.executescript(SCHEMA)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)


def _drop(connection: sqlite3.Connection | None) -> None:
    try:
        if connection is not None:
            connection.close()
    except sqlite3.Error as error:
        LOG.warning("points.close_failed error=%s", error)


def _columns(ids: Mapping[str, int], row: _Row) -> tuple[int, int, Value, str, str | None]:
    sample = row.sample
    at_ms = int(sample.at_utc_s * 1000)
    return ids[row.point], at_ms, _storable(sample.value), sample.quality.value, _text(sample.fault)


def _storable(value: Value) -> Value:
    """Return *value* as SQLite can hold it; a counter beyond 63 bits loses its last digits."""
    if isinstance(value, str):
        return _text(value)
    return float(value) if isinstance(value, int) and abs(value) > INTEGER_MAX else value


def _text(value: str | None) -> str | None:
    return value if value is None else value.encode(errors="backslashreplace").decode()


def _has_moved(old: Observation, new: Observation, deadband: float) -> bool:
    if old.quality is not new.quality or old.fault != new.fault:
        return True
    if isinstance(old.value, int | float) and isinstance(new.value, int | float):
        return abs(new.value - old.value) > deadband
    return old.value != new.value


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, page_size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page_size)
