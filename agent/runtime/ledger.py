"""
What the executor remembers of every command, so that none is performed twice: a hash chain of rows, durable one by one.

`accepted` stands before anything is touched, `result` behind it. A key with the first and without the second is one of
which nobody knows whether it was performed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, TypeVar

from agent.core.model import At, Outcome
from agent.errors import JournalBroken

T = TypeVar("T")

CHAIN_START: Final = "0" * 64
SCHEMA_VERSION: Final = 1
SCHEMA: Final = f"""
    CREATE TABLE IF NOT EXISTS command (
        seq INTEGER PRIMARY KEY, key TEXT NOT NULL, body TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS command_by_key ON command (key);
    PRAGMA user_version = {SCHEMA_VERSION};
"""


class RowKind(StrEnum):
    """What a row says of its key."""

    ACCEPTED = "accepted"  # from here on the command may have been performed
    RESULT = "result"  # what came of an acceptance; REFUSED: it was not performed after all
    REFUSED = "refused"  # it was not even accepted


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `command` is the canonical text of what was asked; `outcome` is None for an acceptance."""

    key: str
    kind: RowKind
    at: At
    command: str
    outcome: Outcome | None = None
    detail: str = ""


class Ledger(Protocol):
    """Where rows are kept. An `append` that returns is durable."""

    async def append(self, row: Row) -> None:
        """Make *row* durable. Raises OSError when it cannot."""
        ...

    async def rows(self, key: str) -> tuple[Row, ...]:
        """Return the rows of *key*, oldest first. Raises OSError."""
        ...

    async def close(self) -> None:
        """Let go of the file."""
        ...


class MemoryLedger:
    """A ledger for virtual time. Hand the same one to a second executor, and the first has crashed."""

    def __init__(self) -> None:
        self._bodies: dict[str, list[str]] = {}
        self.head = CHAIN_START

    async def append(self, row: Row) -> None:
        """Keep *row*."""
        body = encoded(row)
        self._bodies.setdefault(row.key, []).append(body)
        self.head = chained(self.head, body)

    async def rows(self, key: str) -> tuple[Row, ...]:
        """Return the rows of *key*, oldest first."""
        return tuple(map(decoded, self._bodies.get(key, ())))

    async def close(self) -> None:
        """Do nothing: what was kept stays."""


class SqliteLedger:
    """
    The ledger in a file: WAL, synchronous=FULL, one connection in one thread of its own.

    Raises:
        JournalBroken: the file is no ledger, of a newer version, or its chain does not hold.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="executor-ledger")
        try:
            self._connection, self._head = self._pool.submit(_open, path).result()
        except BaseException:
            self._pool.shutdown()
            raise

    async def append(self, row: Row) -> None:
        """Make *row* durable. Raises OSError."""
        await self._in_thread(lambda: self._insert(row))

    async def rows(self, key: str) -> tuple[Row, ...]:
        """Return the rows of *key*, oldest first. Raises OSError."""
        return await self._in_thread(lambda: self._select(key))

    async def close(self) -> None:
        """Close the file and end the thread."""
        await self._in_thread(self._connection.close)
        self._pool.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except sqlite3.Error as error:
            raise OSError(f"executor.db: {error}") from error

    def _insert(self, row: Row) -> None:
        body = encoded(row)
        digest = chained(self._head, body)
        # Without an open transaction each statement is one: it is on the disk when `execute` returns.
        self._connection.execute("INSERT INTO command (key, body, digest) VALUES (?, ?, ?)", (row.key, body, digest))
        self._head = digest

    def _select(self, key: str) -> tuple[Row, ...]:
        found = self._connection.execute("SELECT body FROM command WHERE key = ? ORDER BY seq", (key,))
        return tuple(decoded(body) for (body,) in found)


def encoded(row: Row) -> str:
    """Return *row* as canonical JSON."""
    return json.dumps(asdict(row), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def decoded(body: str) -> Row:
    """Return the row that `encoded` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    words = json.loads(body)
    outcome = words["outcome"]
    return Row(
        key=words["key"],
        kind=RowKind(words["kind"]),
        at=At(**words["at"]),
        command=words["command"],
        outcome=None if outcome is None else Outcome(outcome),
        detail=words["detail"],
    )


def chained(digest: str, body: str) -> str:
    """Return the digest of *body* in a chain that so far ends in *digest* (hex SHA-256)."""
    return hashlib.sha256(f"{digest}\n{body}".encode()).hexdigest()


def _open(path: Path) -> tuple[sqlite3.Connection, str]:
    """Return a connection to the ledger at *path*, new or old, and the head of its chain, which was walked whole."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise JournalBroken(0, f"{path.name} was written by a newer version (schema {version})")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        return connection, _walk(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        raise OSError(f"{path.name}: {error}") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise JournalBroken(0, f"{path.name}: {error}") from error
    except JournalBroken:
        connection.close()
        raise


def _walk(connection: sqlite3.Connection) -> str:
    """Return the head of the chain. Raises JournalBroken with the first row that does not follow."""
    head, expected = CHAIN_START, 1
    for seq, key, body, digest in connection.execute("SELECT seq, key, body, digest FROM command ORDER BY seq"):
        if seq != expected:
            raise JournalBroken(expected, "the row is missing")
        head, expected = chained(head, body), seq + 1
        if digest != head or decoded(body).key != key:
            raise JournalBroken(seq, "the row does not follow from the one before it")
    return head
