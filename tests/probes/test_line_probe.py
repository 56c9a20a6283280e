"""The line probe over the loopback: what it tells of a far end that answers, is silent, or sees another source."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock, boot_s
from agent.core.model import Observation, Quality
from agent.ports import ProbeContext
from probes import line
from probes.line import LineConfig, LineProbe
from tests.fakes.far_end import FarEnd
from tests.fakes.heard import Heard

OWN = "127.0.0.11"
OTHER = "127.0.0.12"


def config(*, source: str = OWN, **more: Any) -> LineConfig:
    known: dict[str, Any] = {"role": "primary", "profile": "fast", "source": source}
    return LineConfig(**(known | more))


def context(**lines: LineConfig) -> ProbeContext:
    return ProbeContext(SystemClock(), lines)


@asynccontextmanager
async def running(*probes: LineProbe) -> AsyncIterator[Heard]:
    """Run *probes* into one ear; what ends one of them ends the test."""
    heard = Heard()
    tasks = [asyncio.create_task(probe.run(heard.publish)) for probe in probes]
    try:
        yield heard
    finally:
        for task in tasks:
            assert not task.done() or task.exception() is None, task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_dead(lost: object) -> bool:
    return isinstance(lost, int) and lost >= 4


async def test_a_far_end_that_answers_is_told_with_loss_time_and_source():
    async with FarEnd() as hq:
        asked = config(targets={"cpe": f"{hq.address}:{hq.port}", "hq": hq.target})
        probe = line.make("wan1", asked, context(wan1=asked))
        async with running(probe) as heard:
            loss = await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 0)
            await heard.good("wan1.cpe.loss_ratio", lambda ratio: ratio == 0)
            time_s = await heard.good("wan1.hq.rtt_s", lambda _: True)
            await heard.good("wan1.binding_ok", lambda ok: ok is True)

    assert loss.source == "line:wan1"
    assert loss.since is None
    assert loss.asked_at <= loss.answered_at
    assert 0 <= float(time_s.value or 0) < 0.5
    assert set(hq.callers) == {OWN}
    assert {it.point for it in heard.seen} == {f"wan1.{point}" for point in probe.specs}


async def test_silence_is_a_good_fact_and_quickly_a_dead_line():
    async with FarEnd() as hq:
        asked = config(targets={"hq": hq.target})
        async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
            await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 0)
            hq.silent, silent_at = True, boot_s()
            dead = await heard.good("wan1.hq.lost_in_row", is_dead, silent_at)
            silent = await heard.good("wan1.hq.silent_s", lambda silent_s: float(silent_s or 0) > 0.4, silent_at)
            whole = await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 1, silent_at)
            hq.silent, again_at = False, boot_s()
            back = await heard.good("wan1.hq.lost_in_row", lambda lost: lost == 0, again_at)

    assert dead.since is not None
    assert dead.since >= silent_at - 0.05
    assert dead.since <= dead.asked_at
    assert dead.answered_at - silent_at < 0.6
    assert silent.since == whole.since == dead.since
    assert back.since is None
    assert heard.values("wan1.binding_ok")[-1] is True


async def test_the_first_loss_on_one_line_asks_every_line_of_the_site_at_once():
    async with FarEnd() as hq, FarEnd() as other:
        one = config(targets={"hq": hq.target})
        two = config(source=OTHER, role="standby", profile="calm", targets={"hq": other.target})
        site = context(wan1=one, wan2=two)
        async with running(line.make("wan1", one, site), line.make("wan2", two, site)) as heard:
            await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 0)
            await heard.good("wan2.hq.rtt_s", lambda _: True)
            silent_at = boot_s()
            hq.silent = True
            lost = await heard.good("wan1.hq.lost_in_row", bool, silent_at)
            assert lost.since is not None
            since = lost.since
            proof = await heard.until(lambda it: it.point == "wan2.hq.lost_in_row" and it.asked_at > since)

    assert proof.value == 0
    assert proof.answered_at - since < 0.4  # its own rhythm is a second, and so is that of telling


async def test_a_burst_goes_on_while_lines_lose_all_the_time_but_not_without_end():
    """Two lines of which every second probe is lost would set each other off; a burst has to rest."""
    async with FarEnd() as hq:
        hq.silent = True
        asked = config(targets={"hq": hq.target})
        probe = line.make("wan1", asked, context(wan1=asked))
        async with running(probe) as heard:
            await heard.good("wan1.binding_ok", lambda ok: ok is True)
            began_at, before = boot_s(), len(hq.callers)
            while boot_s() - began_at < 1.0:
                probe.start_burst()
                await asyncio.sleep(0.005)
            sent = len(hq.callers) - before

    assert 10 + 6 <= sent <= 10 + 3 * 6 + 3


async def test_a_look_is_answered_at_once():
    async with FarEnd() as hq:
        asked = config(profile="calm", targets={"hq": hq.target})
        probe = line.make("wan1", asked, context(wan1=asked))
        async with running(probe) as heard:
            await heard.good("wan1.hq.lost_in_row", lambda lost: lost == 0)
            looked_at = boot_s()
            probe.look()
            seen = await heard.until(lambda it: it.point == "wan1.hq.lost_in_row" and it.asked_at >= looked_at)
            tested = await heard.until(lambda it: it.point == "wan1.binding_ok" and it.asked_at >= looked_at)

    assert seen.value == 0
    assert seen.answered_at - looked_at < 0.5
    assert tested.value is True


async def test_a_far_end_that_sees_another_source_makes_the_line_unknown():
    async with FarEnd() as hq:
        asked = config(targets={"cpe": f"{hq.address}:{hq.port}", "hq": hq.target})
        async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
            await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 0)
            hq.tells, wrong_at = OTHER + "\n", boot_s()
            failed = await heard.good("wan1.binding_ok", lambda ok: ok is False, wrong_at)
            unseen = [await heard.unseen(f"wan1.{rung}.lost_in_row", wrong_at) for rung in ("cpe", "hq")]
            hq.tells, right_at = None, boot_s()
            await heard.good("wan1.binding_ok", lambda ok: ok is True, right_at)
            back = await heard.good("wan1.hq.lost_in_row", lambda _: True, right_at)

    assert failed.quality is Quality.GOOD
    assert {it.fault for it in unseen} == {"binding_failed"}
    assert all(it.value is None for it in unseen)
    assert back.value == 0


@pytest.mark.parametrize("said", ["", "no address\n", "127.0.0.11", "x" * 500])
async def test_a_far_end_that_says_nothing_of_sense_has_not_answered(said: str):
    async with FarEnd() as hq:
        hq.tells = said
        asked = config(targets={"hq": hq.target})
        async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
            lost = await heard.good("wan1.hq.lost_in_row", bool)

    assert lost.quality is Quality.GOOD


async def test_a_refused_connection_is_no_answer():
    async with FarEnd() as hq:
        port = hq.port
    asked = config(targets={"hq": f"127.0.0.9:{port}"})
    async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
        await heard.good("wan1.hq.lost_in_row", is_dead)


async def test_a_source_that_the_host_does_not_have_is_a_failed_binding_and_no_dead_line():
    asked = config(source="192.0.2.77", targets={"hq": "192.0.2.1:9"})
    async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
        unseen = await heard.unseen("wan1.hq.loss_ratio")
        failed = await heard.good("wan1.binding_ok", lambda ok: ok is False)

    assert unseen.fault == "binding_failed"
    assert failed.value is False
    assert heard.values("wan1.hq.lost_in_row") == []


async def test_a_send_that_fails_is_unknown_and_no_loss():
    asked = config(targets={"hq": "192.0.2.1:9"})  # the kernel sends nothing from the loopback to the world
    async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
        unseen = await heard.unseen("wan1.hq.lost_in_row")

    assert unseen.fault == "send_failed"
    assert heard.values("wan1.hq.lost_in_row") == []


async def test_a_stall_of_our_own_is_no_loss():
    """Publishing stalls the loop for 100 ms, five times what a probe may take, just after probes were sent."""
    async with FarEnd() as hq:
        asked = config(targets={"hq": f"{hq.address}:{hq.port}"})
        probe = line.make("wan1", asked, context(wan1=asked))
        heard = Heard()
        stall_s = 0.0

        def stall(observations: Sequence[Observation]) -> None:
            heard.publish(observations)
            time.sleep(stall_s)

        task = asyncio.create_task(probe.run(stall))
        await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 0)  # by now it knows how quick the answers are
        stall_s = 0.1
        for _ in range(6):
            probe.look()
            at = boot_s()
            await heard.until(lambda it, at=at: it.point == "wan1.hq.lost_in_row" and it.asked_at >= at)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert heard.values("wan1.hq.lost_in_row").count(0) >= 6
    assert set(heard.values("wan1.hq.lost_in_row")) == {0}


async def test_the_service_row_is_asked_seldom_and_decides_nothing():
    async with FarEnd() as hq:
        asked = config(targets={"hq": hq.target, "hq_service": f"{hq.address}:{hq.port}"})
        probe = line.make("wan1", asked, context(wan1=asked))
        async with running(probe) as heard:
            await heard.good("wan1.hq_service.open", lambda is_open: is_open is True)
            await heard.good("wan1.hq.loss_ratio", lambda ratio: ratio == 0)

    assert len(heard.values("wan1.hq_service.open")) == 1
    assert "hq_service.loss_ratio" not in probe.specs


async def test_a_service_that_refuses_is_closed():
    async with FarEnd() as hq:
        port = hq.port
    asked = config(targets={"hq_service": f"127.0.0.9:{port}"})
    async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
        closed = await heard.good("wan1.hq_service.open", lambda is_open: is_open is False)

    assert closed.quality is Quality.GOOD


async def test_a_probe_that_is_cancelled_lets_go_of_everything():
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async with FarEnd() as hq:
        hq.silent = True
        asked = config(interface="lo", targets={"cpe": hq.address, "hq": hq.target, "hq_service": hq.target[:-7]})
        site = context(wan1=asked)
        before = descriptors()
        async with running(line.make("wan1", asked, site)) as heard:
            await heard.until(lambda it: it.point == "wan1.hq.lost_in_row")
            assert len(site.bursts) == 1

        assert site.bursts == []
        held = len(hq._held)  # what the far end keeps open is not ours
        for _ in range(500):
            if descriptors() <= before + held:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"{descriptors() - before - held} descriptors are still open")


async def test_carrier_is_a_point_only_with_an_interface():
    asked = config(interface="lo", targets={"hq": "127.0.0.1:9"})
    async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
        carrier = await heard.good("wan1.carrier", lambda carrier: carrier is True)

    assert carrier.quality is Quality.GOOD
    assert "carrier" in line.specs(asked)
    assert "carrier" not in line.specs(config(targets={"hq": "127.0.0.1:9"}))


async def test_an_interface_that_is_not_there_is_unknown():
    asked = config(interface="nowhere0", targets={"hq": "127.0.0.1:9"})
    async with running(line.make("wan1", asked, context(wan1=asked))) as heard:
        carrier = await heard.unseen("wan1.carrier")
        await heard.good("wan1.binding_ok", lambda ok: ok is False)
        unseen = await heard.unseen("wan1.hq.lost_in_row")

    assert carrier.fault == unseen.fault == "binding_failed"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"role": "spare"}, "role: must be primary or standby, got 'spare'"),
        ({"profile": "slow"}, "profile: must be one of fast, default, calm, got 'slow'"),
        ({"source": None}, "interface: without interface or source the probes would leave the way the host routes"),
        ({"interface": "eth1/2"}, "interface: 'eth1/2' cannot be the name of an interface"),
        ({"interface": "a-name-too-long-"}, "interface: 'a-name-too-long-' cannot be the name of an interface"),
        ({"gateway": "router"}, "gateway: 'router' is no IPv4 address; names are not looked up"),
        ({"source": "0.0.0.0"}, "source: '0.0.0.0' is no host's address"),
        ({"targets": {}}, "targets: name at least one of cpe, edge, hq, second_site, hq_service"),
        (
            {"targets": {"pe": "1.2.3.4"}},
            "targets: unknown rung 'pe'; known here: cpe, edge, hq, second_site, hq_service",
        ),
        ({"targets": {"hq": "hq.example"}}, "targets: hq: 'hq.example' is no IPv4 address; names are not looked up"),
        ({"targets": {"hq": "192.0.2.1:0"}}, "targets: hq: '192.0.2.1:0': the port must be within 1 and 65535"),
        (
            {"targets": {"hq": "192.0.2.1/source"}},
            "targets: hq: '192.0.2.1/source': only a TCP target (address:port) can tell the source it saw",
        ),
        (
            {"targets": {"hq": "192.0.2.1:7/echo"}},
            "targets: hq: '192.0.2.1:7/echo': after the slash only the word source is known",
        ),
        ({"targets": {"hq_service": "192.0.2.1"}}, "targets: hq_service: needs a port, as in 192.0.2.1:443"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(keys: dict[str, Any], message: str):
    known: dict[str, Any] = {"role": "primary", "source": OWN, "targets": {"hq": "192.0.2.1"}}

    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the whole message is compared)
        LineConfig(**(known | keys))

    assert str(refused.value) == message


def test_nothing_is_sent_or_opened_before_it_runs():
    before = os.listdir("/proc/self/fd")

    asked = config(targets={"hq": "192.0.2.1"})
    probe = line.KIND.make("wan1", asked, context(wan1=asked))

    assert probe.channel == line.KIND.channel("wan1", asked) == "line:wan1"
    assert os.listdir("/proc/self/fd") == before
