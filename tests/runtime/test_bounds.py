"""
I27: every queue has a bound, what is beyond it merges, and no outcome is dropped.

The inbox by itself; the loop with a journal whose disk is full; and the queues of the journal, points and commands.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from agent.core.model import (
    CommandEnded,
    CommandSent,
    Event,
    HoldAsked,
    Observation,
    Observed,
    Outcome,
    PointId,
    Quality,
    Started,
    Ticked,
    Value,
)
from agent.core.records import HoldSet, Record
from agent.core.state import State
from agent.runtime.inbox import Inbox
from agent.runtime.journal import InlineJournal, JournalFull, JournalLimits
from agent.runtime.loop import Loop
from drills.vdisk import SimDisk, SimFaults
from tests.fakes.sites import bank
from tests.fakes.virtual_site import SiteClock, VirtualSite, pass_time, site_config, virtually

LOST: Final = PointId("wan1.hq.lost_in_row")
OTHER: Final = PointId("wan2.hq.lost_in_row")


def seen(value: Value, at: float = 0.0, point: PointId = LOST, quality: Quality = Quality.GOOD) -> Observation:
    """Return one observation."""
    return Observation(point, value, quality, at, at, "test")


def taken(inbox: Inbox) -> list[Event]:
    """Take everything."""
    events: list[Event] = []
    while (event := inbox.take()) is not None:
        events.append(event)
    return events


def values(events: Sequence[Event], point: PointId = LOST) -> list[Value]:
    """Return what the events tell of *point*, in order."""
    return [o.value for event in events if isinstance(event, Observed) for o in event.observations if o.point == point]


# ---------------------------------------------------------------- the inbox


def test_below_its_bound_every_observation_comes_through_in_order() -> None:
    inbox = Inbox(batches_max=10)
    for number in range(10):
        inbox.observe([seen(number)])

    assert values(taken(inbox)) == list(range(10))
    assert inbox.merged == 0


def test_beyond_its_bound_the_first_change_and_the_newest_value_are_kept() -> None:
    inbox = Inbox(batches_max=1)
    for number, value in enumerate((0, 0, 0, 4, 5, 6, 0)):
        inbox.observe([seen(value, float(number))])

    assert values(taken(inbox)) == [0, 4, 0]


def test_a_change_of_quality_is_a_change() -> None:
    inbox = Inbox(batches_max=1)
    for value, quality in ((0, Quality.GOOD), (0, Quality.GOOD), (None, Quality.UNKNOWN), (0, Quality.GOOD)):
        inbox.observe([seen(value, quality=quality)])

    assert values(taken(inbox)) == [0, None, 0]


def test_a_full_inbox_does_not_grow_with_what_comes_in() -> None:
    inbox = Inbox(batches_max=8)
    for number in range(10_000):
        inbox.observe([seen(number, float(number)), seen(number, float(number), OTHER)])

    assert len(inbox) == 8 + 2
    told = values(taken(inbox))
    assert told[:8] == list(range(8))
    assert told[8:] == [8, 9999]
    assert inbox.merged == 2 * (10_000 - 8 - 2)


def test_outcomes_are_never_dropped_and_go_before_what_was_merged() -> None:
    inbox = Inbox(batches_max=2)
    for number in range(50):
        inbox.observe([seen(number)])
        inbox.put(CommandEnded(f"R{number}.0.1", Outcome.DONE))

    events = taken(inbox)
    assert [e.key for e in events if isinstance(e, CommandEnded)] == [f"R{number}.0.1" for number in range(50)]
    assert isinstance(events[-1], Observed)


def test_after_the_flood_everything_comes_through_again() -> None:
    inbox = Inbox(batches_max=2)
    for number in range(9):
        inbox.observe([seen(number)])
    taken(inbox)
    for number in range(2):
        inbox.observe([seen(100 + number)])

    assert values(taken(inbox)) == [100, 101]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_when_the_last_value_of_each_point_arrives_and_no_other_event_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    inbox = Inbox(batches_max=chance.randint(1, 5))
    sent: list[Event] = []
    events: list[Event] = []
    last: dict[PointId, Value] = {}
    for number in range(300):
        if chance.random() < 0.7:
            point = chance.choice((LOST, OTHER))
            last[point] = chance.randint(0, 4)
            inbox.observe([seen(last[point], float(number), point)])
        elif chance.random() < 0.5:
            sent.append(CommandSent(str(number)))
            inbox.put(sent[-1])
        elif (event := inbox.take()) is not None:
            events.append(event)
    events += taken(inbox)

    assert [event for event in events if not isinstance(event, Observed)] == sent
    for point, value in last.items():
        assert values(events, point)[-1] == value
        asked = [o.asked_at for e in events if isinstance(e, Observed) for o in e.observations if o.point == point]
        assert asked == sorted(asked)


# ---------------------------------------------------------------- the loop on a full disk


def test_an_order_that_cannot_be_remembered_is_told_so_and_done_when_it_can() -> None:
    async def main() -> None:
        clock = SiteClock(asyncio.get_running_loop())
        disk = SimDisk(SimFaults(full_from=2))
        opened = disk.open()
        journal = InlineJournal(opened.store, limits=JournalLimits(queue_entries=20))
        loop = Loop(bank(), State(), journal, clock)
        records: list[Record] = []
        loop.on_record(records.append)
        task = asyncio.create_task(loop.run(Started("1", "x", True)))
        await pass_time(2.0)
        for number in range(20):
            with pytest.raises(TimeoutError):
                await loop.ask(HoldAsked("wang", f"reason {number}", False, None), timeout_s=0.01)
        with pytest.raises(TimeoutError, match="cannot be remembered now"):
            await loop.ask(HoldAsked("wang", "the last", False, None), timeout_s=1.0)
        assert loop.state.volatile.journal_durable is False

        disk.faults = SimFaults()
        await pass_time(10.0)

        reasons = [record.body.reason for record in records if isinstance(record.body, HoldSet)]
        assert reasons[-1] == "the last"
        assert loop.state.durable.hold is not None
        assert loop.state.durable.hold.reason == "the last"
        assert loop.state.volatile.journal_durable is True
        assert journal.durable_seq == journal.seq
        task.cancel()

    virtually(main())


def test_a_result_that_comes_while_nothing_can_be_remembered_reaches_its_run(tmp_path: Path) -> None:
    async def main() -> None:
        site = VirtualSite(site_config(tmp_path), limits=JournalLimits(queue_entries=40))
        site.timing.moves_after_s = 2.0
        async with site.agent() as life:
            await pass_time(40.0)
            site.plant.kill("wan1")
            await life.until(lambda life: any(run.sent for run in life.durable.runs.values()))
            site.disk.faults = SimFaults(full_from=1)
            for reason in map(str, range(60)):  # fill the queue
                with pytest.raises(TimeoutError):
                    await life.loop.ask(HoldAsked("wang", reason, True, 1.0), timeout_s=0.01)
            await pass_time(5.0)
            assert site.table.changes  # the command that had left has come back by now
            site.disk.faults = SimFaults()
            await life.until(lambda life: life.durable.arrangements != {})

            (run,) = life.durable.runs.values()
            assert (run.outcome, run.restarted) == (Outcome.DONE, False)
            assert len(site.table.changes) == 1

    virtually(main())


def test_one_pass_leaves_turns_to_others_however_much_waits() -> None:
    async def main() -> None:
        clock = SiteClock(asyncio.get_running_loop())
        journal = InlineJournal(SimDisk().open().store)
        loop = Loop(bank(), State(), journal, clock)
        task = asyncio.create_task(loop.run(Started("1", "x", True)))
        await asyncio.sleep(0)
        for _ in range(1000):
            loop.send(Ticked())
        backlog = [loop.backlog()]
        while loop.backlog():
            await asyncio.sleep(0)
            backlog.append(loop.backlog())

        assert len(backlog) > 1000 / 64
        task.cancel()

    virtually(main())


# ---------------------------------------------------------------- the journal


def test_a_journal_whose_disk_does_not_answer_holds_no_more_than_its_bound() -> None:
    async def main() -> None:
        disk = SimDisk(SimFaults(full_from=1))
        journal = InlineJournal(disk.open().store, limits=JournalLimits(queue_entries=5))
        for number in range(5):
            journal.append([f'{{"number":{number}}}'])
        with pytest.raises(JournalFull):
            journal.append(['{"number":5}'])

        assert (journal.seq, journal.durable_seq) == (5, 0)

    virtually(main())
