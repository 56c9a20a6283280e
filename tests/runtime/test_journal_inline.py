"""The journal without a thread on the simulated disk: what virtual time lives through."""

from __future__ import annotations

import errno

import pytest

from agent.errors import JournalBroken
from agent.runtime.journal import InlineJournal
from agent.runtime.journal_chain import link
from drills.vdisk import Crash, SimDisk, SimFaults
from tests.fakes.journals import body


async def test_inline_reports_come_from_the_loops_next_pass() -> None:
    disk = SimDisk()
    journal = InlineJournal(disk.open().store, (0, ""))
    durable: list[int] = []
    journal.on_durable(durable.append)

    journal.append([body(1)])

    assert len(disk.entries) == 1
    assert durable == []
    await journal.drain()
    assert durable == [1]
    assert await journal.close() == 0


async def test_inline_tries_again_in_order_and_loses_nothing() -> None:
    disk = SimDisk(SimFaults(failing={1: errno.ENOSPC, 2: errno.EIO}))
    journal = InlineJournal(disk.open().store, (0, ""))
    told: list[str] = []
    journal.on_trouble(told.append)

    journal.append([body(1)])
    journal.append([body(2)])
    assert disk.entries == []
    await journal.drain()

    assert [entry.body for entry in disk.entries] == [body(1), body(2)]
    assert "No space left" in told[0]
    assert told[-1] == ""


async def test_a_crash_at_any_record_leaves_exactly_what_was_durable() -> None:
    for seq in range(1, 8):
        disk = SimDisk(SimFaults(crash_at=seq))
        journal = InlineJournal(disk.open().store, (0, ""))
        for number in range(1, seq):
            journal.append([body(number)])
        with pytest.raises(Crash):
            journal.append([body(seq)])

        opened = disk.open()

        assert opened.bodies == tuple(body(number) for number in range(1, seq + 1))
        assert opened.cut is None


async def test_a_simulated_torn_tail_is_cut_and_told_and_the_journal_goes_on() -> None:
    disk = SimDisk(SimFaults(torn_at=3))
    journal = InlineJournal(disk.open().store, (0, ""))
    journal.append([body(1)])
    with pytest.raises(Crash):
        journal.append([body(2), body(3)])

    opened = disk.open()
    assert opened.bodies == (body(1), body(2))
    assert opened.cut is not None
    assert "record 3" in opened.cut
    InlineJournal(opened.store, opened.head).append([body(3)])
    assert disk.open().bodies == (body(1), body(2), body(3))


async def test_a_simulated_loss_before_the_head_is_a_broken_journal() -> None:
    disk = SimDisk()
    journal = InlineJournal(disk.open().store, (0, ""))
    journal.append([body(1), body(2), body(3)])

    disk.lose_from(3)

    with pytest.raises(JournalBroken, match="ends at record 2, the head says 3"):
        disk.open()


async def test_a_simulated_disk_starts_from_its_last_checkpoint() -> None:
    disk = SimDisk()
    journal = InlineJournal(disk.open().store, (0, ""))
    journal.append([body(1)])
    journal.checkpoint('{"n":1}')
    journal.append([body(3)])

    opened = disk.open()

    assert (opened.checkpoint, opened.bodies, opened.head) == ('{"n":1}', (body(3),), journal.head)


async def test_the_store_of_a_dead_process_writes_nothing_any_more() -> None:
    disk = SimDisk()
    old = disk.open().store
    disk.open()

    with pytest.raises(OSError, match="has ended"):
        old.append(link([body(1)], (0, "")))
    assert disk.entries == []
