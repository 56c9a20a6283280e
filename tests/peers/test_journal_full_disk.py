"""The journal on a real file system of one mebibyte that is full to the last byte. Needs the right to mount."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runtime.journal import Journal, open_journal, verify
from agent.runtime.journal_store import StoreLimits
from tests.fakes.journals import body, until, write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of one mebibyte; needs the right to mount."""
    place = tmp_path / "small"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(place), b"tmpfs", 0, b"size=1m,mode=0700") != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount a small file system: {os.strerror(number)}", str(place))
    yield place
    libc.umount2(bytes(place), 2)


async def test_a_full_disk_releases_the_reserve_so_that_a_run_can_finish(small_disk: Path) -> None:
    limits = StoreLimits(reserve_bytes=200_000)
    opened = open_journal(small_disk, limits)
    journal = Journal(opened.store, opened.head)
    told: list[str] = []
    journal.on_trouble(told.append)
    journal.append([body(1)])
    await journal.drain()
    await until((small_disk / "reserve").exists)
    filler = small_disk / "filler"
    fill(filler)

    for _ in range(20):
        journal.append([body(journal.seq + 1, length=500)])
        await journal.drain()

    assert not (small_disk / "reserve").exists()
    assert any("reserve" in one for one in told)
    filler.unlink()
    journal.append([body(journal.seq + 1)])
    await journal.drain()
    await until(lambda: not journal.trouble)
    assert (small_disk / "reserve").exists()
    await journal.close()
    assert (verify(small_disk).entries, verify(small_disk).problems) == (22, ())


async def test_a_disk_that_is_full_to_the_last_byte_loses_nothing(small_disk: Path) -> None:
    opened = open_journal(small_disk, StoreLimits(reserve_bytes=50_000))
    journal = Journal(opened.store, opened.head)
    told: list[str] = []
    journal.on_trouble(told.append)
    journal.append([body(1)])
    await journal.drain()
    filler = small_disk / "filler"
    fill(filler)

    while not any("cannot be written" in one for one in told):
        journal.append([body(journal.seq + 1, length=3000)])
        await asyncio.sleep(0.005)
    assert journal.durable_seq < journal.seq
    filler.unlink()
    await journal.drain()
    seq = journal.seq
    await journal.close()

    report = verify(small_disk)
    assert (report.entries, report.head_seq, report.problems) == (seq, seq, ())
    assert len(open_journal(small_disk).bodies) == seq


def test_an_agent_starts_on_a_full_disk_with_the_help_of_the_reserve(small_disk: Path, tmp_path: Path) -> None:
    bodies = [body(number) for number in range(1, 101)]
    (tmp_path / "running").mkdir()
    store = write(tmp_path / "running", bodies, group=5)
    for file in (tmp_path / "running").glob("journal.*"):
        if not file.name.endswith("-shm"):
            shutil.copyfile(file, small_disk / file.name)
    store.close()
    limits = StoreLimits(reserve_bytes=100_000)
    (small_disk / "reserve").write_bytes(bytes(limits.reserve_bytes))
    fill(small_disk / "filler")

    assert open_journal(small_disk, limits).bodies == tuple(bodies)


def fill(path: Path) -> None:
    """Write *path* until there is no byte left."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - the end of the loop is meant
