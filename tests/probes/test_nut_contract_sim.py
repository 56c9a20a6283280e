"""The simulated NUT server keeps the contract that the real one keeps, and can fail in every way that it promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from drills.simsite.nut_server import NutFault, SimNutServer
from tests.probes.nut_contract import ON_MAINS, NutContract, fault, probing, until_seen


class SimSite:
    """A SimNutServer behind the handles of the contract tests."""

    def __init__(self) -> None:
        self.server = SimNutServer()
        self.ups = "su700"
        self.server.ups[self.ups] = {
            "ups.status": "OL",
            "ups.load": "23",
            "battery.charge": "100",
            "battery.runtime": "1800",
            "input.voltage": "229.6",
        }

    @property
    def address(self) -> tuple[str, int]:
        return self.server.address

    async def set_variables(self, variables: Mapping[str, str]) -> None:
        self.server.ups[self.ups].update(variables)

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()

    async def freeze(self) -> None:
        self.server.fault = NutFault.FROZEN

    async def thaw(self) -> None:
        self.server.fault = None

    async def kill_driver(self) -> None:
        self.server.faults[self.ups] = NutFault.DRIVER_GONE

    async def start_driver(self) -> None:
        del self.server.faults[self.ups]

    async def freeze_driver(self) -> None:
        self.server.faults[self.ups] = NutFault.STALE

    async def thaw_driver(self) -> None:
        del self.server.faults[self.ups]


@pytest.fixture
async def site() -> AsyncIterator[SimSite]:
    site = SimSite()
    await site.start()
    yield site
    await site.stop()


class TestSimulatedServer(NutContract):
    """Every test of the contract, and what only a stand-in can be told to do."""

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (NutFault.WAIT, "wait"),
            (NutFault.DENIED, "access_denied"),
            (NutFault.CLOSED, "closed"),
            (NutFault.STALE, "data_stale"),
            (NutFault.DRIVER_GONE, "driver_not_connected"),
        ],
    )
    async def test_each_fault_has_its_own_name_and_heals(self, site: SimSite, broken: NutFault, said: str) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            site.server.fault = broken

            assert [await fault(probe, lane) for lane in ("status", "variables")] == [said] * 2
            site.server.fault = None
            await until_seen(probe, ON_MAINS)

    async def test_fault_of_one_device_leaves_the_other_alone(self, site: SimSite) -> None:
        site.server.ups["su701"] = {"ups.status": "OB"}
        site.server.faults["su701"] = NutFault.STALE

        async with probing(site) as probe:
            assert await fault(probe) == ""

    async def test_stopping_a_frozen_server_does_not_hang(self, site: SimSite) -> None:
        async with probing(site) as probe:
            await site.freeze()
            assert await fault(probe) == "timed_out"

            await site.stop()
            assert await fault(probe) == "refused"

    async def test_nothing_listens_before_the_start(self) -> None:
        assert SimNutServer().address == ("127.0.0.1", 0)
