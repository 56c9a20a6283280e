"""The journal at work: chain, durability reports, segments, export, start and stop, on real and simulated disks."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.ports import Entry
from agent.runtime.codec import digest
from agent.runtime.journal import InlineJournal, Journal, JournalFull, JournalLimits, open_journal, verify
from agent.runtime.journal_chain import chain_digest, checkpoint_body, link, read_checkpoint
from agent.runtime.journal_store import StoreLimits
from drills.vdisk import SimDisk, SimFaults
from tests.fakes.journals import SMALL, FailingStore, body, segmented, until, write, written

DEADLINE_S = 20.0


class GatedStore:
    """Holds every append until the gate is open, like a disk whose sync takes long."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.groups: list[tuple[int, ...]] = []

    def append(self, entries: Sequence[Entry]) -> None:
        self.gate.wait(DEADLINE_S)
        self.groups.append(tuple(entry.seq for entry in entries))

    def close(self) -> None:
        pass


# ---------------------------------------------------------------- chain


def test_each_digest_is_made_of_the_one_before_the_number_and_the_body() -> None:
    first, second = link(["a", "b"], (0, ""))

    assert first.digest == digest("1\na", "")
    assert second.digest == digest("2\nb", first.digest) == chain_digest(2, "b", first.digest)


def test_a_checkpoint_gives_back_the_very_text_of_the_state() -> None:
    state = '{"older_digest":",\\"older_digest\\":\\"","x":[1,2.50]}'

    checkpoint = read_checkpoint(checkpoint_body(state, (7, "ab")))

    assert checkpoint is not None
    assert checkpoint.state == state
    assert checkpoint.older == (7, "ab")
    assert checkpoint.is_sound()


def test_a_checkpoint_body_is_valid_json_with_sorted_keys() -> None:
    data = json.loads(checkpoint_body('{"a":1}', (7, "ab")))

    assert list(data) == sorted(data)
    assert data["checkpoint"] == {"a": 1}


# ---------------------------------------------------------------- durability


async def test_what_is_reported_durable_is_there_after_opening_again(tmp_path: Path) -> None:
    opened = open_journal(tmp_path, SMALL)
    journal = Journal(opened.store, opened.head)
    reports: list[int] = []
    journal.on_durable(reports.append)

    journal.append([body(1), body(2)])
    last = journal.append([body(3)])
    await journal.drain()
    assert await journal.close() == 0

    assert last == 3
    assert reports[-1] == 3
    assert reports == sorted(set(reports))
    again = open_journal(tmp_path, SMALL)
    assert again.bodies == (body(1), body(2), body(3))
    assert again.head == journal.head
    assert again.checkpoint is None
    assert again.cut is None


async def test_numbers_go_on_after_opening_again(tmp_path: Path) -> None:
    written(tmp_path, 5)
    opened = open_journal(tmp_path, SMALL)
    journal = Journal(opened.store, opened.head)

    assert journal.append([body(6)]) == 6

    await journal.close()
    assert verify(tmp_path).entries == 6


async def test_all_that_is_queued_becomes_durable_in_one_transaction() -> None:
    store = GatedStore()
    journal = Journal(store, (0, ""))

    journal.append([body(1)])
    await asyncio.to_thread(lambda: None)
    for number in range(2, 50):
        journal.append([body(number)])
    store.gate.set()
    await journal.drain()
    await journal.close()

    assert [seq for group in store.groups for seq in group] == list(range(1, 50))
    assert len(store.groups) <= 3


async def test_a_slow_disk_is_told_and_its_recovery_too() -> None:
    store = GatedStore()
    journal = Journal(store, (0, ""), limits=JournalLimits(slow_s=0.02))
    told: list[str] = []
    journal.on_trouble(told.append)

    journal.append([body(1)])
    await until(lambda: bool(told))
    assert "wait for the disk" in told[0]
    store.gate.set()
    await journal.drain()

    assert told[-1] == journal.trouble == ""
    assert await journal.close() == 0


async def test_a_full_queue_refuses_and_takes_nothing() -> None:
    store = GatedStore()
    journal = Journal(store, (0, ""), limits=JournalLimits(queue_entries=3))
    journal.append([body(1), body(2)])

    with pytest.raises(JournalFull, match="2 records wait"):
        journal.append([body(3), body(4)])

    assert journal.append([body(3)]) == 3
    store.gate.set()
    await journal.close()
    assert [seq for group in store.groups for seq in group] == [1, 2, 3]


async def test_nothing_is_lost_while_the_disk_refuses(tmp_path: Path) -> None:
    opened = open_journal(tmp_path, SMALL)
    store = FailingStore(opened.store, OSError(errno.EIO, "Input/output error"))
    journal = Journal(store, opened.head)
    told: list[str] = []
    durable: list[int] = []
    journal.on_trouble(told.append)
    journal.on_durable(durable.append)

    journal.append([body(1)])
    journal.append([body(2)])
    await until(lambda: store.attempts >= 2)
    assert durable == []
    assert "Input/output error" in told[0]
    store.error = None
    await journal.drain()
    await journal.close()

    assert told[-1] == ""
    assert open_journal(tmp_path, SMALL).bodies == (body(1), body(2))


async def test_closing_on_a_dead_disk_ends_and_counts_what_is_lost(tmp_path: Path) -> None:
    opened = open_journal(tmp_path, SMALL)
    journal = Journal(FailingStore(opened.store, OSError(errno.EIO, "Input/output error")), opened.head)
    journal.append([body(1), body(2)])

    assert await journal.close() == 2

    assert open_journal(tmp_path, SMALL).bodies == ()


async def test_a_writer_that_dies_is_told_and_reports_nothing_durable() -> None:
    disk = SimDisk(SimFaults(crash_at=1))
    journal = Journal(disk.open().store, (0, ""))
    told: list[str] = []
    durable: list[int] = []
    journal.on_trouble(told.append)
    journal.on_durable(durable.append)

    journal.append([body(1)])
    await until(lambda: bool(told))

    assert "writer died" in told[0]
    assert durable == []
    await journal.close()


async def test_a_record_cannot_pass_itself_off_as_a_checkpoint() -> None:
    journal = InlineJournal(SimDisk().open().store, (0, ""))

    with pytest.raises(ValueError, match="like a checkpoint"):
        journal.append(['{"checkpoint":{}}'])

    assert journal.seq == 0


async def test_a_head_that_could_not_be_written_is_caught_up_without_writing_twice(tmp_path: Path) -> None:
    store = open_journal(tmp_path, SMALL).store
    entries = link([body(1), body(2)], (0, ""))
    head = tmp_path / "journal.head"
    head.rename(tmp_path / "away")
    with pytest.raises(OSError, match="No such file"):
        store.append(entries)
    (tmp_path / "away").rename(head)

    store.append(entries)
    store.close()

    assert verify(tmp_path).problems == ()
    assert open_journal(tmp_path, SMALL).bodies == (body(1), body(2))


# ---------------------------------------------------------------- segments


async def test_a_full_segment_asks_for_a_checkpoint_and_opening_starts_from_it(tmp_path: Path) -> None:
    opened = open_journal(tmp_path, SMALL)
    journal = Journal(opened.store, opened.head, limits=JournalLimits(segment_entries=3))
    journal.append([body(1), body(2)])
    assert not journal.checkpoint_due
    journal.append([body(3)])
    assert journal.checkpoint_due

    assert journal.checkpoint('{"alarms":3}') == 4
    assert not journal.checkpoint_due
    journal.append([body(5)])
    await journal.close()

    again = open_journal(tmp_path, SMALL)
    assert again.checkpoint == '{"alarms":3}'
    assert again.bodies == (body(5),)
    assert again.filled.entries == 1
    report = verify(tmp_path)
    assert (report.problems, report.entries, report.segments) == ((), 5, 2)


async def test_a_segment_is_also_full_by_size() -> None:
    journal = InlineJournal(SimDisk().open().store, (0, ""), limits=JournalLimits(segment_bytes=100))

    journal.append([body(1, length=100)])

    assert journal.checkpoint_due


async def test_a_restart_knows_how_full_the_segment_is(tmp_path: Path) -> None:
    written(tmp_path, 5)
    opened = open_journal(tmp_path, SMALL)

    journal = Journal(opened.store, opened.head, filled=opened.filled, limits=JournalLimits(segment_entries=5))

    assert journal.checkpoint_due
    await journal.close()


async def test_old_segments_are_exported_before_they_go_and_the_file_stays_bounded(tmp_path: Path) -> None:
    limits = StoreLimits(database_bytes=200_000, log_bytes=50_000, reserve_bytes=4096)
    opened = open_journal(tmp_path, limits)
    journal = Journal(opened.store, opened.head, limits=JournalLimits(segment_entries=50))
    bodies = {}
    for _ in range(150):
        if journal.checkpoint_due:
            journal.checkpoint('{"n":0}')
        group = [body(number, length=300) for number in range(journal.seq + 1, journal.seq + 11)]
        bodies |= {journal.seq + 1 + place: one for place, one in enumerate(group)}
        journal.append(group)
        await journal.drain()
    await journal.close()

    report = verify(tmp_path)
    assert report.problems == ()
    assert report.first_seq is not None
    assert report.first_seq > 1
    assert (tmp_path / "journal.db").stat().st_size < 2 * limits.database_bytes
    exported = []
    for file in sorted((tmp_path / "exports").iterdir()):
        exported += [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert [one["seq"] for one in exported] == list(range(1, report.first_seq))
    previous = ""
    for one in exported:
        assert one["digest"] == chain_digest(one["seq"], one["body"], previous)
        assert one["body"] == bodies.get(one["seq"], one["body"])
        previous = one["digest"]
    assert open_journal(tmp_path, limits).checkpoint == '{"n":0}'


async def test_a_damaged_old_segment_is_not_exported_and_not_removed(tmp_path: Path) -> None:
    directory, head = segmented(tmp_path / "journal", segments=6, each=30)
    with sqlite3.connect(directory / "journal.db") as connection:
        connection.execute("UPDATE entries SET body = body || ' ' WHERE seq = 5")
    connection.close()
    limits = StoreLimits(database_bytes=4096, reserve_bytes=4096)
    opened = open_journal(directory, limits)
    journal = Journal(opened.store, opened.head)
    told: list[str] = []
    journal.on_trouble(told.append)

    journal.append([body(head[0] + 1)])
    await journal.drain()
    await until(lambda: bool(told))
    await journal.close()

    assert "record 5 is altered" in told[0]
    assert verify(directory).first_seq == 1
    assert list((directory / "exports").iterdir()) == []


# ---------------------------------------------------------------- beside a reader


def test_reading_beside_a_running_writer_changes_nothing(tmp_path: Path) -> None:
    store = write(tmp_path, [body(number) for number in range(1, 30)])
    before = {file.name: file.read_bytes() for file in tmp_path.glob("journal.*") if not file.name.endswith("-shm")}

    report = verify(tmp_path)

    assert (report.problems, report.entries, report.head_seq, report.after_head) == ((), 29, 29, 0)
    after = {file.name: file.read_bytes() for file in tmp_path.glob("journal.*") if not file.name.endswith("-shm")}
    assert after == before
    store.close()


async def test_verifying_again_and_again_beside_a_busy_writer_never_raises_a_false_alarm(tmp_path: Path) -> None:
    opened = open_journal(tmp_path, StoreLimits(log_bytes=30_000, reserve_bytes=4096))
    journal = Journal(opened.store, opened.head, limits=JournalLimits(segment_entries=40))
    is_done = False

    async def keep_writing() -> None:
        while not is_done:
            if journal.checkpoint_due:
                journal.checkpoint("{}")
            journal.append([body(journal.seq + 1)])
            await journal.drain()

    writing = asyncio.create_task(keep_writing())
    for _ in range(40):
        report = await asyncio.to_thread(verify, tmp_path)
        assert report.problems == ()
    is_done = True
    await writing
    await journal.close()


def test_an_empty_directory_verifies_as_nothing(tmp_path: Path) -> None:
    report = verify(tmp_path)

    assert (report.entries, report.segments, report.problems, report.is_sound) == (0, 0, (), True)
