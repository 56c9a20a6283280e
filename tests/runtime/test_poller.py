"""The poller keeps its rhythm whatever a probe does, and says of every point why it is unknown."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from agent.clock import SystemClock
from agent.core.model import PointId, Quality
from agent.errors import FAULTS, ProbeFault
from agent.ports import Lane, Probe, Readings, Suspect
from agent.runtime.poller import Poller
from agent.runtime.tally import FIRST_POLL_WITHIN_S, phase_s
from drills.vtime import VirtualClock, run_virtual
from tests.fakes.polled import Polled, Script, Seen, Stream, Tarpit, Unkillable, refused

VALUE = PointId("ups.value")


@asynccontextmanager
async def polling(*probes: Probe) -> AsyncIterator[tuple[Poller, Seen]]:
    """Run a poller for *probes* in virtual time."""
    seen = Seen()
    poller = Poller(probes, VirtualClock(asyncio.get_running_loop()), seen)
    task = asyncio.create_task(poller.run())
    try:
        yield poller, seen
    finally:
        task.cancel()
        await asyncio.wait({task})


def during(seconds: float, *probes: Probe) -> tuple[Poller, Seen]:
    """Poll *probes* for this many virtual seconds."""

    async def main() -> tuple[Poller, Seen]:
        async with polling(*probes) as (poller, seen):
            await asyncio.sleep(seconds)
        return poller, seen

    return run_virtual(main())


def made(build: Callable[[], Probe], check: Callable[[Probe, Poller, Seen], Awaitable[None]]) -> None:
    """Run *check* in virtual time while what *build* makes is polled."""

    async def main() -> None:
        probe = build()
        async with polling(probe) as (poller, seen):
            await check(probe, poller, seen)

    run_virtual(main())


def gaps(times: Sequence[float]) -> list[float]:
    return [round(after - before, 6) for before, after in pairwise(times)]


def test_readings_become_good_observations_of_the_probes_channel():
    _, seen = during(3, Polled(answer=lambda: {"value": 7, "other": True}, takes_s=0.25))

    value, other = seen.batches[0]
    assert (value.point, value.value, value.quality, value.fault) == (VALUE, 7, Quality.GOOD, None)
    assert (other.point, other.value, other.source) == ("ups.other", True, "fake:ups")
    assert value.answered_at - value.asked_at == pytest.approx(0.25)


def test_a_point_that_the_device_does_not_have_is_not_observed():
    _, seen = during(3, Polled(answer=lambda: {"value": 7}))

    assert seen.of("ups.value")
    assert seen.of("ups.other") == []


def test_polls_keep_an_absolute_rhythm_that_slow_answers_do_not_shift():
    probe = Polled(takes_s=0.4)

    during(60, probe)

    assert set(gaps(probe.asked_at)) == {1.0}


def test_a_slot_that_passes_during_a_poll_is_left_out_and_never_made_up():
    probe = Polled(takes_s=1.5)

    during(60, probe)

    assert set(gaps(probe.asked_at)) == {2.0}
    assert probe.in_flight_most == 1


def test_the_first_polls_are_spread_the_same_way_on_every_start():
    lane = Lane("slow", 10.0, 3.0, ("value",))
    phases = [phase_s(f"ups-{number}", lane) for number in range(200)]

    assert phases == [phase_s(f"ups-{number}", lane) for number in range(200)]
    assert all(0 <= phase < FIRST_POLL_WITHIN_S for phase in phases)
    assert all(20 <= sum(low <= phase < low + 1 for phase in phases) <= 60 for low in range(5))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_makes_every_point_of_the_lane_unknown_under_its_own_name(fault: str):
    _, seen = during(3, Polled(answer=Script(ProbeFault(fault, "detail"))))

    assert {(one.point, one.value, one.quality, one.fault) for one in seen.batches[0]} == {
        ("ups.value", None, Quality.UNKNOWN, fault),
        ("ups.other", None, Quality.UNKNOWN, fault),
    }


def test_a_fault_of_no_known_name_is_called_failed():
    _, seen = during(3, Polled(answer=Script(ProbeFault("strange\n"))))

    assert seen.of("ups.value")[0].fault == "failed"


def test_a_suspect_reading_keeps_its_value_and_tells_the_reason_in_plain_words():
    reason = "charge 250\x1b[31m\n" + "x" * 500

    _, seen = during(3, Polled(answer=lambda: {"value": Suspect(250.0, reason)}))

    value = seen.of("ups.value")[0]
    assert (value.value, value.quality) == (250.0, Quality.SUSPECT)
    assert value.fault is not None
    assert value.fault.startswith("charge 250 [31m xxx")
    assert len(value.fault) == 120


@pytest.mark.parametrize("reading", [math.nan, math.inf, [1], b"x", Suspect(math.nan, "odd")])
def test_what_is_no_value_is_a_bad_reply_and_spares_the_other_points(reading: object):
    _, seen = during(3, Polled(answer=lambda: {"value": reading, "other": 1}))

    value, other = seen.batches[0]
    assert (value.value, value.quality, value.fault) == (None, Quality.UNKNOWN, "bad_reply")
    assert other.quality is Quality.GOOD


@pytest.mark.parametrize("answer", [Script(ZeroDivisionError("a mistake")), lambda: None, Script(OSError("gone"))])
def test_a_mistake_in_a_probe_costs_its_own_points_alone(answer: Callable[[], Readings]):
    _, seen = during(10, Polled("bad", answer), Polled("good"))

    assert {one.fault for one in seen.of("bad.value")} == {"failed"}
    assert len(seen.of("good.value")) >= 9


def test_a_probe_that_cancels_itself_has_failed():
    _, seen = during(5, Polled(answer=Script(asyncio.CancelledError())))  # type: ignore[arg-type]

    assert {one.fault for one in seen.of("ups.value")} == {"failed"}


def test_no_answer_within_the_deadline_is_timed_out():
    probe = Tarpit(deadline_s=3.0)

    _, seen = during(20, probe)

    first = seen.of("ups.value")[0]
    assert (first.fault, first.answered_at - first.asked_at) == ("timed_out", pytest.approx(3.0))
    assert probe.in_flight_most == 1


def test_a_probe_that_swallows_its_cancellation_is_left_and_not_asked_beside_itself():
    async def check(probe: Unkillable, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(60)
        assert len(probe.asked_at) == 1
        assert poller.stats().abandoned == 1
        assert {one.fault for one in seen.of("ups.value")} == {"timed_out"}
        assert len(seen.of("ups.value")) > 50

        probe.may_end.set()
        await asyncio.sleep(2)
        assert seen.of("ups.value")[-1].quality is Quality.GOOD

    made(Unkillable, check)


def test_half_of_a_hundred_probes_hang_and_the_others_are_not_late():
    async def main() -> None:
        good = [Polled(f"good-{number}", takes_s=0.01) for number in range(50)]
        hung = [Tarpit(f"tarpit-{number}") for number in range(25)]
        worse = [Unkillable(f"worse-{number}") for number in range(25)]
        async with polling(*good, *hung, *worse) as (poller, seen):
            await asyncio.sleep(120)
            stats = poller.stats()
            for probe in worse:
                probe.may_end.set()

        assert stats.lateness_p99_s < 1.0
        assert all(set(gaps(probe.asked_at)) == {1.0} for probe in good)
        assert all(len(seen.of(f"{probe.equipment}.value")) >= 119 for probe in good)
        assert max(probe.in_flight_most for probe in (*hung, *worse)) == 1

    run_virtual(main())


async def test_half_of_a_hundred_probes_hang_in_real_time_too():
    good = [Polled(f"good-{number}", period_s=0.1) for number in range(50)]
    hung = [Tarpit(f"tarpit-{number}", period_s=0.1, deadline_s=0.2) for number in range(50)]
    seen = Seen()
    poller = Poller([*good, *hung], SystemClock(), seen)
    task = asyncio.create_task(poller.run())

    async with asyncio.timeout(30):
        while min(len(probe.asked_at) for probe in good) < 8:
            seen.news.clear()
            await seen.news.wait()
    task.cancel()
    await asyncio.wait({task})

    assert poller.stats().lateness_p99_s < 1.0


def test_silence_is_told_once_and_so_is_the_return_with_its_length(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    probe = Polled(answer=refused)

    async def main() -> None:
        async with polling(probe):
            await asyncio.sleep(30)
            probe.answer = lambda: {"value": 1}
            await asyncio.sleep(30)

    run_virtual(main())

    silent, back = [record.getMessage() for record in caplog.records]
    assert silent.startswith("target.silent target=ups.fast fault=refused detail=line one line two [31m xxx")
    assert "\n" not in silent
    assert back.startswith("target.back target=ups.fast silent_s=30.0")


def test_a_mistake_in_a_probe_is_told_once_with_its_place(caplog: pytest.LogCaptureFixture):
    during(30, Polled(answer=Script(ZeroDivisionError("a mistake"))))

    (told,) = caplog.records
    assert told.exc_info is not None


def test_a_crashed_stream_is_unknown_and_starts_again_after_a_growing_wait():
    stream = Stream(crashes=7)

    poller, seen = during(200, stream)

    assert gaps(stream.started_at) == [1, 2, 4, 8, 16, 30, 30]
    assert poller.stats().restarts == {"wan1": 7}
    unknown, good = seen.batches[0], seen.batches[-1]
    assert {(one.point, one.fault) for one in unknown} == {("wan1.value", "failed"), ("wan1.other", "failed")}
    assert good[0].quality is Quality.GOOD


def test_the_wait_starts_anew_for_a_stream_that_had_run_well():
    class RunsWell(Stream):
        async def run(self, publish):
            self.started_at.append(asyncio.get_running_loop().time())
            if len(self.started_at) == 4:
                await asyncio.sleep(100)
            raise ZeroDivisionError("a mistake")

    stream = RunsWell()

    during(120, stream)

    assert gaps(stream.started_at)[:6] == [1, 2, 4, 101, 2, 4]


def test_a_stream_that_names_its_fault_keeps_the_name():
    _, seen = during(0.5, Stream(crashes=1, error=ProbeFault("binding_failed", "no such interface")))

    assert {one.fault for one in seen.batches[0]} == {"binding_failed"}


def test_a_stream_that_ends_is_started_again():
    class Ends(Stream):
        async def run(self, publish):
            self.started_at.append(0.0)

    stream = Ends()

    _, seen = during(10, stream)

    assert len(stream.started_at) == 4
    assert {one.fault for one in seen.of("wan1.value")} == {"failed"}


def slow_lane() -> Polled:
    return Polled(period_s=60.0)


def test_a_look_asks_at_once_and_again_until_its_end():
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(10)
        poller.look([VALUE], not_before=10.0, until=11.0)
        await asyncio.sleep(20)

        asked = probe.asked_at[1:]
        assert asked[0] == pytest.approx(10.0)
        assert min(gaps(asked)) >= 0.05
        assert len(asked) in (20, 21)  # the last one falls on the very end
        assert asked[-1] <= 11.0 + 1e-6

    made(slow_lane, check)


def test_a_look_does_not_move_the_rhythm():
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(10)
        poller.look([VALUE], not_before=10.0, until=10.2)
        await asyncio.sleep(100)

        assert probe.asked_at[-1] - probe.asked_at[0] == pytest.approx(60.0)

    made(slow_lane, check)


def test_a_look_does_not_begin_before_its_time():
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(10)
        poller.look([VALUE], not_before=12.0, until=12.5)
        await asyncio.sleep(10)

        assert probe.asked_at[1] == pytest.approx(12.0)

    made(slow_lane, check)


def test_a_poll_in_flight_is_followed_by_one_that_was_asked_after_the_look_began():
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(phase_s("ups", probe.lanes[0]) + 0.5)
        assert probe.in_flight == 1
        now = asyncio.get_running_loop().time()
        poller.look([VALUE], not_before=now, until=now + 5.0)
        await asyncio.sleep(5)

        assert probe.asked_at[1] == pytest.approx(probe.asked_at[0] + 2.0)
        assert probe.in_flight_most == 1

    made(lambda: Polled(period_s=60.0, takes_s=2.0), check)


def test_a_look_that_is_ended_asks_no_more():
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(10)
        poller.look([VALUE], not_before=10.0, until=20.0)
        await asyncio.sleep(1.01)
        poller.unlook([VALUE])
        asked = len(probe.asked_at)
        await asyncio.sleep(10)

        assert len(probe.asked_at) == asked

    made(slow_lane, check)


def test_two_looks_at_one_lane_serve_both():
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(10)
        poller.look([VALUE], not_before=10.0, until=11.0)
        poller.look([VALUE], not_before=10.5, until=12.0)
        await asyncio.sleep(10)

        assert probe.asked_at[1] == pytest.approx(10.0)
        assert probe.asked_at[-1] == pytest.approx(12.0, abs=0.06)

    made(slow_lane, check)


def test_a_look_leaves_other_probes_alone():
    other = slow_lane()
    other.equipment = "pdu"

    async def main() -> None:
        async with polling(slow_lane(), other) as (poller, _):
            await asyncio.sleep(10)
            poller.look([VALUE], not_before=10.0, until=12.0)
            await asyncio.sleep(10)

    run_virtual(main())

    assert len(other.asked_at) == 1


def test_a_look_at_a_stream_asks_it_to_look_now():
    async def check(stream: Stream, poller: Poller, seen: Seen) -> None:
        await asyncio.sleep(10)
        poller.look([PointId("wan1.value")], not_before=10.0, until=11.0)
        await asyncio.sleep(10)

        assert stream.looked_at == pytest.approx([10.0, 10.25, 10.5, 10.75, 11.0])

    made(Stream, check)


def test_a_look_at_a_point_of_no_probe_is_told(caplog: pytest.LogCaptureFixture):
    async def check(probe: Polled, poller: Poller, seen: Seen) -> None:
        poller.look([PointId("nothing.value"), VALUE], not_before=0.0, until=1.0)

    made(Polled, check)

    assert [record.getMessage() for record in caplog.records] == ["look.no_probe points=nothing.value"]


def test_counts_exist_from_the_first_moment_and_count_polls_and_faults():
    async def fresh() -> Poller:
        return Poller([Polled("a"), Stream("b")], VirtualClock(asyncio.get_running_loop()), Seen())

    poller = run_virtual(fresh())
    assert (poller.stats().polls, poller.stats().faults) == ({"a": 0, "b": 0}, {"a": 0, "b": 0})

    poller, _ = during(10.5, Polled("a", refused), Polled("b"))
    stats = poller.stats()
    assert stats.polls["a"] == stats.faults["a"] >= 10
    assert stats.polls["b"] >= 10
    assert stats.faults["b"] == 0


def test_stopping_closes_the_probes_and_leaves_no_poll_behind():
    good, hung = Polled("good"), Tarpit("hung")

    during(5, good, hung)

    assert (good.is_closed, hung.is_closed) == (True, True)
    assert (good.in_flight, hung.in_flight) == (0, 0)
