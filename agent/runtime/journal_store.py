"""
Journal entries in SQLite: one connection, used by one thread; a commit is durable in the log and told to the head.

Segments that are no longer needed are exported before they are removed, so that the file stays within its bound.
"""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.ports import Entry
from agent.runtime.journal_chain import Walk, is_checkpoint
from agent.runtime.journal_file import DATABASE, HEAD, connect_writing, disk_errors, read_rows, segment_starts
from agent.runtime.journal_head import HeadWriter
from agent.runtime.state_dir import RESERVE_BYTES, Reserve, fsync_directory

LOG: Final = logging.getLogger(__name__)
MIB: Final = 1024 * 1024
SEGMENTS_MIN: Final = 3  # with fewer nothing is removed


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bounds of the files. The database may pass `database_bytes` by one segment and the log before it is trimmed."""

    database_bytes: int = 176 * MIB
    log_bytes: int = 4 * MIB  # a longer log is written back into the database
    reserve_bytes: int = RESERVE_BYTES


class SqliteStore:
    """
    The journal's store in *directory*; `open_journal` makes it after it has looked at what is there.

    The files are opened by the first `append` and belong to the thread that calls it.
    """

    def __init__(self, directory: Path, limits: StoreLimits) -> None:
        self.directory = directory
        self.limits = limits
        self._reserve = Reserve(directory, limits.reserve_bytes)
        self._connection: sqlite3.Connection | None = None
        self._head: HeadWriter | None = None
        self._committed = 0
        self._must_trim = True
        self._trim_trouble = ""

    def append(self, entries: Sequence[Entry]) -> None:
        """Make *entries* durable, all or nothing. After an error the same may be given again. Raises OSError."""
        try:
            self._append(entries)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._reserve.release():
                raise
            LOG.warning("journal.reserve_released size_bytes=%d", self.limits.reserve_bytes)
            self._append(entries)

    def maintain(self) -> str:
        """
        Keep log, database and reserve within their bounds; called when there is nothing better to do.

        Return what a person must know about the disk, "" when there is nothing. Raises OSError.
        """
        connection = self._connection
        if connection is None:
            return ""
        if self._must_trim:
            self._trim(connection)
        if self._log_size() > self.limits.log_bytes:
            with disk_errors("write the log back"):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if self._reserve.hold():
            return self._trim_trouble
        return f"disk full: the reserve of {self.limits.reserve_bytes // 1024} KiB is in use"

    def close(self) -> None:
        """Let go of the files. Raises OSError."""
        if self._head is not None:
            self._head.close()
            self._head = None
        self._disconnect()

    def _append(self, entries: Sequence[Entry]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        if self._head is None:
            self._head = HeadWriter(self.directory / HEAD)
        # Entries that are in the database already: the head could not be written, or the commit came through after all.
        fresh = [entry for entry in entries if entry.seq > self._committed]
        if fresh:
            self._commit(self._connection, fresh)
        self._head.write((entries[-1].seq, entries[-1].digest))

    def _connect(self) -> sqlite3.Connection:
        with disk_errors("open the journal"):
            connection = connect_writing(self.directory / DATABASE)
            try:
                # After an error nobody knows how much of the log reached the disk; writing it back brings all of it.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                (last,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
            except sqlite3.Error:
                connection.close()
                raise
        self._committed = last or 0
        return connection

    def _commit(self, connection: sqlite3.Connection, entries: list[Entry]) -> None:
        rows = [(entry.seq, entry.body, bytes.fromhex(entry.digest)) for entry in entries]
        starts = [(entry.seq,) for entry in entries if is_checkpoint(entry.body) or entry.seq == 1]
        try:
            with disk_errors("commit"):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO entries(seq, body, digest) VALUES (?, ?, ?)", rows)
                connection.executemany("INSERT INTO segments(first_seq) VALUES (?)", starts)
                connection.execute("COMMIT")
        except OSError as error:
            self._recover(connection, error)
            raise
        self._committed = entries[-1].seq
        self._must_trim = self._must_trim or bool(starts)

    def _recover(self, connection: sqlite3.Connection, error: OSError) -> None:
        """Bring the connection back into a known state: rolled back, or, where the disk itself failed, a new one."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            LOG.warning("journal.rollback_failed error=%s", second)
            error = OSError(errno.EIO, str(second))
        if error.errno not in (errno.ENOSPC, errno.EBUSY):  # a new connection would need disk space of its own
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with disk_errors("close the journal"):
                connection.close()

    def _log_size(self) -> int:
        try:
            return (self.directory / f"{DATABASE}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Export and remove the oldest segment while the database is over its bound; one at a time."""
        with disk_errors("measure the journal"):
            pages, free, page_size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            starts = segment_starts(connection)
        if (pages - free) * page_size <= self.limits.database_bytes or len(starts) < SEGMENTS_MIN:
            self._must_trim = False
            return
        try:
            with disk_errors("export a segment"):
                name = self._remove(connection, starts[0], starts[1])
        except OSError as error:
            # Not before the next segment again: the records themselves go on becoming durable.
            self._must_trim = False
            self._trim_trouble = f"the journal grows beyond its bound: {error}"
            LOG.warning("journal.export_failed first_seq=%d error=%s", starts[0], error)
        else:
            self._trim_trouble = ""
            LOG.info("journal.segment_exported file=%s", name)

    def _remove(self, connection: sqlite3.Connection, first: int, until: int) -> str:
        """Remove the segment from *first* to before *until* once it is exported; return the export's name."""
        name = self._export(connection, first, until)
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("DELETE FROM entries WHERE seq < ?", (until,))
            connection.execute("DELETE FROM segments WHERE first_seq < ?", (until,))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return name

    def _export(self, connection: sqlite3.Connection, first: int, until: int) -> str:
        """Write the segment to a file of one JSON object per line, durably; return its name."""
        exports = self.directory / "exports"
        exports.mkdir(mode=0o700, exist_ok=True)
        name = f"journal-{first:012d}-{until - 1:012d}.jsonl.gz"
        fresh = exports / f"{name}.new"
        try:
            with fresh.open("wb") as file:
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed:
                    for line in _lines(connection, first, until):
                        packed.write(line)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(exports / name)
        finally:
            fresh.unlink(missing_ok=True)
        fsync_directory(exports)
        return name


def _lines(connection: sqlite3.Connection, first: int, until: int) -> Iterator[bytes]:
    """Yield the records from *first* to before *until* as lines. Raises OSError where the chain does not hold."""
    walk = Walk(first)
    for row in read_rows(connection, first):
        if row is not None and row.seq >= until:
            return
        fault = walk.fault(row)
        if fault or row is None:
            raise OSError(errno.EIO, fault)
        line = {"body": row.body, "digest": row.digest, "seq": row.seq}
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
