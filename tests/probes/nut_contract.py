"""What every NUT server must do to our probe, be it the real one or a stand-in: one set of tests for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from agent.errors import ProbeFault
from probes.nut import NutConfig, NutProbe

REPLY_TIMEOUT_S = 1.0
PATIENCE_S = 15.0  # the real server takes up to 2 s for a change and 3 s for a new driver
ON_MAINS = {"mains_present": True, "on_battery": False, "battery_low": False}


class NutSite(Protocol):
    """A NUT server with one device, which a test can break."""

    ups: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        ...

    async def set_variables(self, variables: Mapping[str, str]) -> None:
        """Change values of the device."""

    async def start(self) -> None:
        """Start the server."""

    async def stop(self) -> None:
        """Stop the server."""

    async def freeze(self) -> None:
        """Keep the server from answering."""

    async def thaw(self) -> None:
        """Let the server answer again, also what was asked meanwhile."""

    async def kill_driver(self) -> None:
        """End the driver."""

    async def start_driver(self) -> None:
        """Start the driver."""

    async def freeze_driver(self) -> None:
        """Keep the driver from answering the server."""

    async def thaw_driver(self) -> None:
        """Let the driver answer again."""


@asynccontextmanager
async def probing(site: NutSite, **config: Any) -> AsyncIterator[NutProbe]:
    """Give a probe of the device of *site* with a short reply deadline."""
    host, port = site.address
    probe = NutProbe("ups-a", NutConfig(site.ups, host, port, **{"reply_timeout_s": REPLY_TIMEOUT_S, **config}))
    try:
        yield probe
    finally:
        await probe.close()


async def fault(probe: NutProbe, lane: str = "status") -> str:
    """Return the fault of one poll, or "" when it was answered."""
    try:
        await probe.poll(lane)
    except ProbeFault as error:
        return error.fault
    return ""


async def seen(probe: NutProbe, lane: str = "status") -> dict[str, Any]:
    """Return the readings of one poll, none of them when it had a fault."""
    try:
        return dict(await probe.poll(lane))
    except ProbeFault:
        return {}


async def until_seen(probe: NutProbe, wanted: Mapping[str, Any], lane: str = "status") -> None:
    """Poll until every reading of *wanted* is there; fail after `PATIENCE_S`."""
    readings: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not wanted.items() <= (readings := await seen(probe, lane)).items():  # noqa: ASYNC110 (it polls)
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"wanted {wanted}, last seen {readings}")


async def faults_until_seen(probe: NutProbe, wanted: Mapping[str, Any]) -> list[str]:
    """Return the faults, each once, that polls showed until every reading of *wanted* was there."""
    faults: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if wanted.items() <= dict(await probe.poll("status")).items():
                    return faults
            except ProbeFault as error:
                if error.fault not in faults:
                    faults.append(error.fault)
            await asyncio.sleep(0.005)


async def until_fault(probe: NutProbe, wanted: str) -> None:
    """Poll until the fault is *wanted*; fail after `PATIENCE_S`."""
    last = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (last := await fault(probe)) != wanted:  # noqa: ASYNC110 (it polls)
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"wanted the fault {wanted}, last was {last!r}")


class NutContract:
    """The tests. A subclass offers the fixture `site`: a running NutSite whose device stands on mains."""

    async def test_mains_lost_low_battery_and_back(self, site: NutSite) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            await site.set_variables({"ups.status": "OB DISCHRG"})
            await until_seen(probe, {"mains_present": False, "on_battery": True, "battery_low": False})
            await site.set_variables({"ups.status": "OB LB"})
            await until_seen(probe, {"on_battery": True, "battery_low": True, "status": "OB LB"})
            await site.set_variables({"ups.status": "OL CHRG"})
            await until_seen(probe, ON_MAINS)

    async def test_measured_values_come_in_base_units(self, site: NutSite) -> None:
        await site.set_variables({"battery.charge": "87", "ups.load": "23", "input.voltage": "229.6"})

        async with probing(site) as probe:
            wanted = {"load_ratio": 0.23, "battery_charge_ratio": 0.87, "input_voltage_volt": 229.6}
            await until_seen(probe, {point: pytest.approx(value) for point, value in wanted.items()}, "variables")

    async def test_what_the_device_does_not_report_is_left_out(self, site: NutSite) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)

            assert "input_frequency_hertz" not in await probe.poll("variables")

    async def test_frozen_server_times_out_and_is_read_rightly_after_the_thaw(self, site: NutSite) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            await site.freeze()
            faults = [await fault(probe, lane) for lane in ("status", "variables", "status")]
            await site.thaw()

            assert faults == ["timed_out"] * 3
            await until_seen(probe, ON_MAINS)
            assert "status" not in await probe.poll("variables")

    async def test_stopped_server_refuses(self, site: NutSite) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            await site.stop()

            assert await fault(probe) in {"refused", "closed"}
            assert await fault(probe) == "refused"
            await site.start()
            await until_seen(probe, ON_MAINS)

    async def test_dead_driver_is_told_from_a_dead_server(self, site: NutSite) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            await site.kill_driver()
            await until_fault(probe, "driver_not_connected")

            assert await fault(probe, "variables") == "driver_not_connected"
            await site.start_driver()
            await until_seen(probe, ON_MAINS)

    async def test_silent_driver_makes_the_data_stale(self, site: NutSite) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            await site.freeze_driver()
            await until_fault(probe, "data_stale")

            assert await fault(probe, "variables") == "data_stale"
            await site.thaw_driver()
            await until_seen(probe, ON_MAINS)

    async def test_unknown_device_is_said_to_be_unknown(self, site: NutSite) -> None:
        host, port = site.address
        probe = NutProbe("ups-b", NutConfig("nobody", host, port))

        assert [await fault(probe, lane) for lane in ("status", "variables")] == ["unknown_ups"] * 2
        await probe.close()

    async def test_quotes_and_backslashes_come_through(self, site: NutSite) -> None:
        await site.set_variables({"ups.status": 'OL "x\\y'})

        async with probing(site) as probe:
            await until_seen(probe, {"mains_present": True, "status": 'OL "x\\y'})
