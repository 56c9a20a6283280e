"""The far ends of the simulated branch keep the contract of a far side, and break as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from drills.simsite.far_end import LINES, RUNGS, FarEnds
from probes.wire.echo import parse_target
from tests.drills.far_side_contract import PATIENCE_S, FarSideContract, lost, told
from tests.fakes.far_end import FarEnd

WAN1, WAN2 = LINES["wan1"].source, LINES["wan2"].source


@pytest.fixture
async def ends() -> AsyncIterator[FarEnds]:
    ends = FarEnds()
    await ends.start()
    yield ends
    await ends.stop()


class OneRung:
    """Headquarters of the simulated branch over wan1, behind the handles of the contract tests."""

    def __init__(self, ends: FarEnds) -> None:
        self.target = ends.target("wan1", "hq")
        self._ends = ends

    def fall_silent(self) -> None:
        self._ends.break_line("wan1")

    def recover(self) -> None:
        self._ends.mend_line("wan1")


class SmallOne:
    """The far end of the tests behind the same handles."""

    def __init__(self, end: FarEnd) -> None:
        self.target = end.target
        self._end = end

    def fall_silent(self) -> None:
        self._end.silent = True

    def recover(self) -> None:
        self._end.silent = False


class TestFarEnds(FarSideContract):
    """FarEnds."""

    @pytest.fixture
    def far(self, ends: FarEnds) -> OneRung:
        return OneRung(ends)

    @pytest.mark.parametrize(("rung", "answering"), [("cpe", []), ("edge", ["cpe"]), ("hq", ["cpe", "edge"])], ids=str)
    async def test_a_break_silences_its_place_and_all_behind_it_on_that_line_only(
        self, ends: FarEnds, rung: str, answering: list[str]
    ):
        ends.break_line("wan1", rung)

        assert [r for r in RUNGS if not await lost(ends.target("wan1", r), WAN1)] == answering
        assert [await told(ends.target("wan2", r), WAN2) for r in RUNGS] == [WAN2] * 3

    async def test_dead_headquarters_answers_on_no_line_and_nothing_before_it_falls_silent(self, ends: FarEnds):
        ends.hq_dead = True

        assert await lost(ends.target("wan1", "hq"), WAN1) == "timed_out"
        assert await lost(ends.target("wan2", "hq"), WAN2) == "timed_out"
        assert await told(ends.target("wan2", "edge"), WAN2) == WAN2

    def test_losses_are_of_the_given_part_and_the_same_for_the_same_seed(self):
        def losses(seed: int) -> list[bool]:
            ends = FarEnds(seed=seed)
            ends.lose("wan1", 0.25)
            return [not ends.answers("hq", WAN1) for _ in range(1000)]

        assert losses(1) == losses(1)
        assert losses(1) != losses(2)
        assert 200 < sum(losses(1)) < 300

    def test_a_lossy_line_loses_nothing_before_the_place_where_it_is_lossy(self):
        ends = FarEnds()
        ends.lose("wan1", 1.0)

        assert [ends.answers(rung, WAN1) for rung in RUNGS] == [True, False, False]

    @pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
    def test_an_impossible_loss_is_refused_and_nothing_is_lost(self, ratio: float):
        ends = FarEnds()

        with pytest.raises(ValueError, match="loss_ratio"):
            ends.lose("wan1", ratio)
        assert ends.answers("hq", WAN1)

    def test_unknown_lines_and_rungs_are_refused(self):
        ends = FarEnds()

        with pytest.raises(KeyError, match="wan9"):
            ends.break_line("wan9")
        with pytest.raises(ValueError, match="rung"):
            ends.break_line("wan1", "moon")
        with pytest.raises(KeyError, match="wan9"):
            ends.mend_line("wan9")

    async def test_stopping_does_not_wait_for_unanswered_calls_and_the_ports_outlive_it(self, ends: FarEnds):
        target = ends.target("wan1", "hq")
        at = parse_target(target)
        ends.break_line("wan1")
        reader, writer = await asyncio.open_connection(at.address, at.port, local_addr=(WAN1, 0))
        await told(ends.target("wan1", "cpe"), WAN1)  # called later: by now the other call is held
        async with asyncio.timeout(PATIENCE_S):
            await ends.stop()
            await ends.stop()
            assert await reader.read() == b""
        writer.close()

        assert await lost(target) == "refused"
        ends.mend_line("wan1")
        await ends.start()
        assert await told(target) == WAN1


class TestFarEndOfTheTests(FarSideContract):
    """The small far end of tests/fakes."""

    @pytest.fixture
    async def far(self) -> AsyncIterator[SmallOne]:
        async with FarEnd() as end:
            yield SmallOne(end)
