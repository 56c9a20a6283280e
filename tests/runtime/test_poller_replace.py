"""Replacing probes under a running poller: what stays is not disturbed, what goes is heard no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent.core.model import PointId
from agent.ports import Probe
from agent.runtime.poller import Poller
from drills.vtime import VirtualClock, run_virtual
from tests.fakes.polled import Polled, Seen, Stream, Unkillable


def during(check: Callable[[Poller, Seen], Awaitable[None]], *probes: Probe) -> None:
    """Run *check* in virtual time while *probes* are polled."""

    async def main() -> None:
        seen = Seen()
        poller = Poller(probes, VirtualClock(asyncio.get_running_loop()), seen)
        task = asyncio.create_task(poller.run())
        await asyncio.sleep(3.0)
        try:
            await check(poller, seen)
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.wait({task})

    run_virtual(main())


def test_a_probe_that_stays_keeps_its_rhythm_and_its_counts():
    stays, goes = Polled("stays"), Polled("goes")

    async def check(poller: Poller, seen: Seen) -> None:
        polls = poller.stats().polls["stays"]
        poller.replace([stays])
        await asyncio.sleep(3.0)

        assert poller.stats().polls["stays"] == polls + 3

    during(check, stays, goes)
    gaps = {round(after - before, 6) for before, after in zip(stays.asked_at, stays.asked_at[1:], strict=False)}
    assert gaps == {1.0}


def test_a_probe_that_goes_is_closed_and_neither_heard_nor_counted_any_more():
    stays, goes = Polled("stays"), Polled("goes", takes_s=0.5)

    async def check(poller: Poller, seen: Seen) -> None:
        poller.replace([stays])
        heard = len(seen.of("goes.value"))
        await asyncio.sleep(5.0)

        assert goes.is_closed
        assert not stays.is_closed
        assert len(seen.of("goes.value")) == heard
        assert set(poller.stats().polls) == {"stays"}

    during(check, stays, goes)


def test_a_probe_that_comes_is_asked_and_can_be_looked_at_at_once():
    comes = Polled("comes", period_s=1000.0)

    async def check(poller: Poller, seen: Seen) -> None:
        poller.replace([comes])
        now = asyncio.get_running_loop().time()
        poller.look([PointId("comes.value")], now, now + 0.3)
        await asyncio.sleep(0.5)

        assert seen.of("comes.value")

    during(check)


def test_the_follower_of_a_probe_begins_when_that_has_ended():
    before, after = Polled("ups", takes_s=0.9), Polled("ups")

    async def check(poller: Poller, seen: Seen) -> None:
        polls = poller.stats().polls["ups"]
        poller.replace([after])
        await asyncio.sleep(3.0)

        assert before.is_closed
        assert before.in_flight == 0
        assert before.asked_at[-1] <= after.asked_at[0]
        assert poller.stats().polls["ups"] > polls
        assert seen.of("ups.value")[-1].value == 1

    during(check, before)


def test_a_stream_is_ended_and_another_runs_in_its_place():
    before, after = Stream("line"), Stream("line")
    after.channel = "line:by another way"

    async def check(poller: Poller, seen: Seen) -> None:
        heard = len(seen.batches)
        poller.replace([after])
        await asyncio.sleep(3.0)

        sources = {observation.source for batch in seen.batches[heard:] for observation in batch}
        assert sources == {"line:by another way"}
        assert len(seen.batches) >= heard + 3

    during(check, before)


def test_a_probe_that_will_not_end_does_not_keep_the_next_from_its_work():
    stuck, after = Unkillable("ups"), Polled("ups")

    async def check(poller: Poller, seen: Seen) -> None:
        poller.replace([after])
        await asyncio.sleep(3.0)

        assert after.asked_at
        stuck.may_end.set()
        await asyncio.sleep(1.0)

    during(check, stuck)


def test_without_any_probe_the_poller_waits_for_one():
    async def check(poller: Poller, seen: Seen) -> None:
        comes = Polled("comes")
        poller.replace([comes])
        poller.replace([])
        await asyncio.sleep(3.0)
        assert comes.asked_at == []

        again = Polled("comes")
        poller.replace([again])
        await asyncio.sleep(3.0)
        assert again.asked_at

    during(check)
