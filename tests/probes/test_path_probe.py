"""The path probe: does headquarters answer the way the host routes it, and by which line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.clock import SystemClock, boot_s
from agent.core.model import Quality
from agent.errors import ProbeFault
from agent.ports import ProbeContext, Suspect
from probes import path
from probes.line import LineConfig
from probes.path import PathConfig, PathProbe
from probes.path_line import line_of
from probes.wire.echo import Reply, Target
from tests.fakes.far_end import FarEnd
from tests.fakes.heard import Heard

WAN1 = LineConfig(role="primary", source="127.0.0.11", targets={"hq": "127.0.0.9"})
WAN2 = LineConfig(role="standby", source="127.0.0.12", targets={"hq": "127.0.0.9"})
TARGET = "127.0.0.9:9/source"


class Routing:
    """Stands for the host's routing: answers with `says`, raises it when it is a fault, or hangs when it is None."""

    def __init__(self) -> None:
        self.says: str | ProbeFault | None = "127.0.0.11"
        self.asked_at: list[float] = []

    async def __call__(self, target: str, timeout_s: float) -> str:
        assert target == TARGET
        self.asked_at.append(boot_s())
        says = self.says
        if says is None:
            await asyncio.Event().wait()
        if isinstance(says, ProbeFault):
            raise says
        assert says is not None
        return says


@pytest.fixture
def routing() -> Routing:
    return Routing()


@asynccontextmanager
async def running(opener: Routing | None, target: str = TARGET, **keys: Any) -> AsyncIterator[tuple[PathProbe, Heard]]:
    lines = keys.pop("site", {"wan1": WAN1, "wan2": WAN2})
    heard = Heard()
    probe = path.make("path", PathConfig(target, **keys), ProbeContext(SystemClock(), lines, opener))
    task = asyncio.create_task(probe.run(heard.publish))
    try:
        yield probe, heard
    finally:
        assert not task.done(), task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_line_is_named_by_the_source_that_the_far_end_saw(routing: Routing):
    async with running(routing) as (probe, heard):
        answered = await heard.good("path.answered", lambda answered: answered is True)
        line = await heard.good("path.line", lambda line: line == "wan1")

    assert answered.asked_at == line.asked_at
    assert answered.source == probe.channel == path.KIND.channel("path", PathConfig(TARGET)) == "path"
    assert {it.point for it in heard.seen} == {f"path.{point}" for point in probe.specs}


async def test_a_look_sees_a_moved_route_at_once(routing: Routing):
    async with running(routing, period_s=30.0) as (probe, heard):
        await heard.good("path.line", lambda line: line == "wan1")
        routing.says, moved_at = "127.0.0.12", boot_s()
        probe.look()
        moved = await heard.good("path.line", lambda line: line == "wan2", moved_at)

    assert moved.asked_at >= moved_at
    assert moved.answered_at - moved_at < 0.3


async def test_a_look_asks_again_for_a_second_because_routes_take_their_time(routing: Routing):
    async with running(routing, period_s=30.0) as (probe, heard):
        await heard.good("path.line", lambda line: line == "wan1")
        probe.look()
        await asyncio.sleep(0.1)
        routing.says, moved_at = "127.0.0.12", boot_s()
        moved = await heard.good("path.line", lambda line: line == "wan2", moved_at)

    assert moved.answered_at - moved_at < 0.3


async def test_however_often_somebody_looks_it_asks_twenty_times_a_second_at_most(routing: Routing):
    async with running(routing) as (probe, _):
        began_at = boot_s()
        while boot_s() - began_at < 1.0:
            probe.look()
            await asyncio.sleep(0.002)
        asked = [at for at in routing.asked_at if at >= began_at]

    assert 12 <= len(asked) <= 21


async def test_a_hanging_way_is_silent_after_a_second(routing: Routing):
    async with running(routing) as (_, heard):
        await heard.good("path.line", lambda line: line == "wan1")
        routing.says, hung_at = None, boot_s()
        silent = await heard.good("path.answered", lambda answered: answered is False, hung_at)
        line = await heard.unseen("path.line", hung_at)
        second = await heard.good("path.answered", lambda answered: answered is False, silent.answered_at + 0.001)

    assert silent.answered_at - silent.asked_at == pytest.approx(1.0, abs=0.3)
    assert silent.since == second.since == silent.asked_at
    assert line.fault == "timed_out"


@pytest.mark.parametrize("fault", ["refused", "closed", "unreachable", "timed_out"])
async def test_a_way_that_fails_on_the_wire_is_not_answered(routing: Routing, fault: str):
    routing.says = ProbeFault(fault)
    async with running(routing) as (_, heard):
        silent = await heard.good("path.answered", lambda answered: answered is False)
        line = await heard.unseen("path.line")

    assert silent.quality is Quality.GOOD
    assert line.fault == fault


@pytest.mark.parametrize("fault", ["send_failed", "binding_failed", "failed", "bad_reply"])
async def test_a_fault_of_our_own_says_nothing_of_the_way(routing: Routing, fault: str):
    routing.says = ProbeFault(fault)
    async with running(routing) as (_, heard):
        answered = await heard.unseen("path.answered")
        line = await heard.unseen("path.line")

    assert answered.fault == line.fault == fault


async def test_a_source_of_no_line_is_answered_by_a_line_unknown(routing: Routing):
    routing.says = "127.0.0.99"
    async with running(routing) as (_, heard):
        await heard.good("path.answered", lambda answered: answered is True)
        line = await heard.unseen("path.line")

    assert line.fault == "failed"


async def test_a_late_answer_does_not_speak_over_a_later_one(routing: Routing):
    async with running(routing, period_s=30.0) as (probe, heard):
        await heard.good("path.line", lambda line: line == "wan1")
        routing.says = None
        probe.look()
        hung_at = boot_s()
        for _ in range(500):
            if routing.asked_at[-1] >= hung_at - 0.001:
                break
            await asyncio.sleep(0.005)
        routing.says = "127.0.0.12"
        moved = await heard.good("path.line", lambda line: line == "wan2")
        # The first question runs into its deadline a second later: it is older than what was told since.
        later = await heard.good("path.answered", lambda _: True, moved.answered_at + 0.8)

    assert later.value is True
    assert False not in heard.values("path.answered")


async def test_the_kernels_own_way_is_asked_where_nothing_stands_for_it():
    own = LineConfig(role="primary", source="127.0.0.1", targets={"hq": "127.0.0.9"})
    async with FarEnd() as hq, running(None, hq.target, site={"wan1": own, "wan2": WAN2}) as (_, heard):
        await heard.good("path.line", lambda line: line == "wan1")
        hq.tells = "127.0.0.12\n"
        await heard.good("path.line", lambda line: line == "wan2")
        hq.silent = True
        silent = await heard.good("path.answered", lambda answered: answered is False)

    assert silent.quality is Quality.GOOD


async def test_only_the_lines_that_are_named_count(routing: Routing):
    routing.says = "127.0.0.12"
    async with running(routing, lines=("wan1",)) as (_, heard):
        line = await heard.unseen("path.line")

    assert line.fault == "failed"


def test_address_and_interface_that_contradict_each_other_are_suspect():
    lines = {"wan1": WAN1, "lan": LineConfig(role="standby", interface="lo", targets={"hq": "127.0.0.9"})}
    target = Target("127.0.0.9")

    assert line_of(Reply(target, 1, 0.0, "127.0.0.11"), lines) == "wan1"
    assert line_of(Reply(target, 1, 0.0, "127.0.0.77", ifindex=1), lines) == "lan"
    assert line_of(Reply(target, 1, 0.0, "127.0.0.1"), lines) == "lan"  # the interface's own address
    assert line_of(Reply(target, 1, 0.0, "127.0.0.77"), lines) is None
    assert line_of(Reply(target, 1, 0.0, "127.0.0.11", ifindex=1), lines) == Suspect(
        None, "127.0.0.11 is of wan1, the answer came in by lan"
    )


def test_two_lines_of_one_address_are_told_apart_by_nothing():
    assert line_of(Reply(Target("127.0.0.9"), 1, 0.0, "127.0.0.11"), {"wan1": WAN1, "twin": WAN1}) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target": "hq"}, "target: 'hq' is no IPv4 address; names are not looked up"),
        ({"target": "192.0.2.1", "period_s": 0.01}, "period_s: must be within 0.1 and 60, got 0.01"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(keys: dict[str, Any], message: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the whole message is compared)
        PathConfig(**keys)

    assert str(refused.value) == message
