"""
Opens the journal: looks at it without changing it, and says whether what was remembered can be trusted.

A torn tail (damage after the head) is cut and told. Anything else is a broken journal, which is set aside untouched.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import JournalBroken
from agent.runtime.journal_chain import BEFORE_ALL, EMPTY, Filled, Head, Tail, check_tail
from agent.runtime.journal_file import (
    DATABASE,
    HEAD,
    READ_ERRORS,
    SCHEMA,
    connect_reading,
    connect_writing,
    disk_errors,
    first_page_fault,
    read_rows,
    segment_starts,
    surroundings_errno,
)
from agent.runtime.journal_head import HeadFile, HeadWriter, create_head, read_head
from agent.runtime.journal_store import SqliteStore, StoreLimits
from agent.runtime.state_dir import Reserve, fsync_directory

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """
    A journal that can be trusted. State is `checkpoint` (its JSON, None: the state before everything) with `bodies`
    applied to it. `cut` says what was cut off as a torn tail. `filled` is how full the present segment is.
    """

    store: SqliteStore
    head: Head
    checkpoint: str | None
    bodies: tuple[str, ...]
    cut: str | None = None
    filled: Filled = EMPTY


def open_journal(directory: Path, limits: StoreLimits | None = None) -> Opened:
    """
    Open the journal in *directory*, beginning one where there is none.

    Raises:
        JournalBroken: records up to the head are missing or altered, or the head cannot be read. Nothing was changed.
        OSError: the surroundings do not allow it (no space, no permission); the journal itself may be good.
    """
    limits = limits or StoreLimits()
    try:
        return _open(directory, limits)
    except OSError as error:
        # Even reading needs a little space, for the index beside the log; a full disk must not keep us from starting.
        if error.errno != errno.ENOSPC or not Reserve(directory, limits.reserve_bytes).release():
            raise
        LOG.warning("journal.reserve_released size_bytes=%d", limits.reserve_bytes)
        return _open(directory, limits)


def set_aside(directory: Path) -> Path:
    """
    Move the journal's files out of the way, untouched, and return the database's new name. Raises OSError.

    The name `journal.db.broken-<n>` with its log beside it can still be read by SQLite.
    """
    number = 1
    while any(directory.glob(f"journal.*.broken-{number}*")):
        number += 1
    aside = directory / f"{DATABASE}.broken-{number}"
    for old, new in (
        (f"{DATABASE}-wal", f"{aside.name}-wal"),
        (DATABASE, aside.name),
        (HEAD, f"{HEAD}.broken-{number}"),
    ):
        if (directory / old).exists():
            (directory / old).rename(directory / new)
    (directory / f"{DATABASE}-shm").unlink(missing_ok=True)
    fsync_directory(directory)
    return aside


def read_tail(directory: Path, held: HeadFile | None) -> Tail | None:
    """
    Return the end of the journal as far as it holds, None where no journal was begun. Changes nothing.

    Raises: as `open_journal`.
    """
    head = BEFORE_ALL
    if held is not None:
        newest = held.newest
        if newest is None:
            raise JournalBroken(1, f"neither slot of {HEAD} can be read")
        head = newest.head
    path = directory / DATABASE
    if not path.exists() or path.stat().st_size == 0:
        if head != BEFORE_ALL:
            raise JournalBroken(1, f"{DATABASE} is missing, the head says {head[0]} records")
        return None
    try:
        with closing(connect_reading(path)) as connection:
            if held is None:
                _refuse_unheaded(connection)
                return None
            if fault := first_page_fault(path, connection):
                raise JournalBroken(1, fault)
            starts = segment_starts(connection)
            # Not later than the head, so that its digest is met on the way.
            first_seq = max((seq for seq in starts if seq <= max(head[0], 1)), default=1)
            return check_tail(read_rows(connection, first_seq), head, first_seq)
    except READ_ERRORS as error:
        code = surroundings_errno(error)
        if held is None and code == errno.EROFS:
            return None  # a crash interrupted the beginning, and only the one who writes can clear that up
        if code is not None:
            raise OSError(code, f"read the journal: {error}") from error
        raise JournalBroken(1, f"{DATABASE} is damaged: {error}") from error


def _refuse_unheaded(connection: sqlite3.Connection) -> None:
    """Refuse a database without a head file, unless it is empty: a crash interrupted its beginning."""
    is_begun = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
    if is_begun and connection.execute("SELECT count(*) FROM entries").fetchone()[0]:
        raise JournalBroken(1, f"{HEAD} is missing while there are records")


def _open(directory: Path, limits: StoreLimits) -> Opened:
    held = read_head(directory / HEAD)
    tail = read_tail(directory, held)
    if tail is None:
        _begin(directory)
        return Opened(SqliteStore(directory, limits), BEFORE_ALL, None, ())
    if tail.cut_from is not None:
        _cut(directory, tail.cut_from)
        LOG.warning("journal.tail_cut reason=%s", tail.cut)
    if held is not None:
        _mend_head(directory, held, tail.head)
    return Opened(SqliteStore(directory, limits), tail.head, tail.checkpoint, tail.bodies, tail.cut, tail.filled)


def _begin(directory: Path) -> None:
    with disk_errors("begin the journal"), closing(connect_writing(directory / DATABASE)) as connection:
        connection.executescript(SCHEMA)
    fsync_directory(directory)
    # Last, so that a head file means that the database was begun for good.
    create_head(directory / HEAD, BEFORE_ALL)


def _cut(directory: Path, first_seq: int) -> None:
    with disk_errors("cut the torn tail"), closing(connect_writing(directory / DATABASE)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM entries WHERE seq >= ?", (first_seq,))
        connection.execute("DELETE FROM segments WHERE first_seq >= ?", (first_seq,))
        connection.execute("COMMIT")


def _mend_head(directory: Path, held: HeadFile, head: Head) -> None:
    """Write the head anew where a slot was torn, or where records after it were taken."""
    newest = held.newest
    if newest is not None and newest.head == head and all(held.slots):
        return
    LOG.warning("journal.head_mended seq=%d", head[0])
    writer = HeadWriter(directory / HEAD)
    try:
        for _ in held.slots:
            writer.write(head)
    finally:
        writer.close()
