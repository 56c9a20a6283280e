"""The probe against a real `upsd` with a real driver. Needs the package nut-server."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from probes.wire.nut import NutClient
from tests.peers.upsd import RealUpsd
from tests.probes.nut_contract import ON_MAINS, NutContract, faults_until_seen, probing, until_seen

DELAYED_ACKNOWLEDGEMENT_S = 0.040


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[RealUpsd]:
    async with RealUpsd(tmp_path, max_age_s=3) as upsd:
        yield upsd


class TestRealServer(NutContract):
    """Every test of the contract, and what only the real server does."""

    async def test_restarted_server_waits_before_it_knows(self, site: RealUpsd) -> None:
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
            await site.stop()
            await site.start()

            faults = await faults_until_seen(probe, ON_MAINS)

            assert faults[-1] == "wait"

    async def test_reading_waits_for_no_delayed_acknowledgement(self, site: RealUpsd) -> None:
        client = NutClient(*site.address)
        loop = asyncio.get_running_loop()
        took_s = []
        async with probing(site) as probe:
            await until_seen(probe, ON_MAINS)
        for _ in range(20):
            begun = loop.time()
            await client.list_vars(site.ups)
            took_s.append(loop.time() - begun)
        await client.close()

        assert statistics.median(took_s) < DELAYED_ACKNOWLEDGEMENT_S / 2
