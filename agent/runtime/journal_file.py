"""The journal's database file: names, connections, rows, and what an SQLite error means."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from agent.ports import Entry

DATABASE: Final = "journal.db"
HEAD: Final = "journal.head"
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries(seq INTEGER PRIMARY KEY, body TEXT NOT NULL, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS segments(first_seq INTEGER PRIMARY KEY);
"""
ROWS: Final = "SELECT seq, body, digest, typeof(body), typeof(digest) FROM entries WHERE seq >= ? ORDER BY seq"
TABLES: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
HEADER_START: Final = b"SQLite format 3\0"
WAL_FORMAT: Final = b"\x02\x02"

# What reading a damaged file may raise; the second where SQLite's own message quotes damaged text.
READ_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)

# SQLite's result codes that speak of the surroundings; all others, met while reading, speak of a damaged file.
SURROUNDINGS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
SHARED_MEMORY_CODES: Final = {  # the index beside the log could not be made; the journal itself is not meant
    sqlite3.SQLITE_IOERR_SHMOPEN: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_SHMSIZE: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_SHMMAP: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_SHMLOCK: errno.EIO,
    sqlite3.SQLITE_IOERR_LOCK: errno.EIO,
}


def connect_reading(path: Path) -> sqlite3.Connection:
    """
    Open *path* so that neither it nor its log can be changed. Text comes as bytes.

    SQLite before 3.51.3 can lose a transaction when two connections write or checkpoint at once, so there is one
    connection that may, and all others are opened by this.
    """
    # Without a log nobody is writing; SQLite would make an empty one, which needs a directory that can be written.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=1.0)
    connection.text_factory = bytes
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def connect_writing(path: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open *path* for its one writer: log mode, no checkpoint but our own."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def read_rows(connection: sqlite3.Connection, first_seq: int) -> Iterator[Entry | None]:
    """Yield the entries from *first_seq* on, None for one whose parts are not what they must be."""
    for seq, body, digest, body_type, digest_type in connection.execute(ROWS, (first_seq,)):
        if not isinstance(seq, int) or body_type not in (b"text", "text") or digest_type not in (b"blob", "blob"):
            yield None
            continue
        try:
            yield Entry(seq, body if isinstance(body, str) else body.decode(), digest.hex())
        except UnicodeDecodeError:
            yield None


def segment_starts(connection: sqlite3.Connection) -> list[int]:
    """Return the first record of every segment, oldest first."""
    return [seq for (seq,) in connection.execute("SELECT first_seq FROM segments ORDER BY first_seq")]


def first_page_fault(path: Path, connection: sqlite3.Connection) -> str:
    """Return what is wrong with the header or the tables' definitions, by which all else is read; "" when nothing."""
    with path.open("rb") as file:
        header = file.read(100)
    if not header.startswith(HEADER_START) or header[18:20] != WAL_FORMAT:
        return f"the header of {path.name} is damaged"
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(SCHEMA)
        model.text_factory = bytes
        wanted = model.execute(TABLES).fetchall()
    return "" if connection.execute(TABLES).fetchall() == wanted else f"the tables of {path.name} are not as defined"


def surroundings_errno(error: Exception) -> int | None:
    """Return the errno that stands for *error* when it is none of the file itself, else None."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return SHARED_MEMORY_CODES.get(code) or SURROUNDINGS.get(code & 0xFF)


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn SQLite's errors into OSError: the door's word for "cannot be made durable"."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(surroundings_errno(error) or errno.EIO, f"{doing}: {error}") from error
