"""Journals for tests: small ones on disk, files bent byte by byte, and stores that fail."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.ports import Entry, JournalStore
from agent.runtime.journal import open_journal
from agent.runtime.journal_chain import Head, checkpoint_body, link
from agent.runtime.journal_store import SqliteStore, StoreLimits

SMALL = StoreLimits(reserve_bytes=4096)
UNTIL_S = 20.0
MARK = "#"  # stands in every body, so that bodies can be found in the file


def body(number: int, length: int = 40) -> str:
    """Return a record's body that can be told from all others."""
    return f'{{"kind":"Note","text":"{MARK}{number:06d}{"." * length}"}}'


def write(directory: Path, bodies: Sequence[str], *, group: int = 1, limits: StoreLimits = SMALL) -> SqliteStore:
    """Append *bodies* in groups of *group* and return the store, still open: its log has not been written back."""
    opened = open_journal(directory, limits)
    head = opened.head
    for start in range(0, len(bodies), group):
        entries = link(bodies[start : start + group], head)
        opened.store.append(entries)
        head = (entries[-1].seq, entries[-1].digest)
    return opened.store


def written(directory: Path, count: int, *, limits: StoreLimits = SMALL) -> Path:
    """Make a journal of *count* records in *directory* and close it."""
    directory.mkdir(parents=True, exist_ok=True)
    write(directory, [body(number) for number in range(1, count + 1)], group=7, limits=limits).close()
    return directory


def segmented(directory: Path, segments: int, each: int) -> tuple[Path, Head]:
    """Make a journal of *segments* segments with a checkpoint and *each* records; return it with its head."""
    directory.mkdir(parents=True, exist_ok=True)
    store = open_journal(directory, SMALL).store
    head: Head = (0, "")
    for segment in range(segments):
        bodies = [checkpoint_body(f'{{"segment":{segment}}}', head)]
        bodies += [body(head[0] + 1 + number) for number in range(each)]
        entries = link(bodies[:1], head)
        entries += link(bodies[1:], (entries[-1].seq, entries[-1].digest))
        store.append(entries)
        head = (entries[-1].seq, entries[-1].digest)
    store.close()
    return directory, head


def copied(source: Path, target: Path) -> Path:
    """Copy the journal's files, as they stand on disk at this moment, to a fresh *target*."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for file in source.glob("journal.*"):
        if not file.name.endswith("-shm"):  # after a power cut there is none
            shutil.copyfile(file, target / file.name)
    return target


def flip(path: Path, position: int, bits: int = 0x01) -> None:
    """Turn *bits* of the byte at *position* over."""
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ bits]))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(UNTIL_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class FailingStore:
    """A store in front of another that fails, while `error` is set, before anything was written."""

    def __init__(self, inner: JournalStore, error: OSError | None = None) -> None:
        self.inner = inner
        self.error = error
        self.attempts = 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Fail with `error`, or hand on."""
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.inner.append(entries)

    def close(self) -> None:
        """Close the store behind."""
        self.inner.close()
