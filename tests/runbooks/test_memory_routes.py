"""The route table in memory keeps the contract of every route table."""

from __future__ import annotations

import pytest

from drills.simsite.routes import MemoryRouteTable
from tests.runbooks.route_contract import ADDRESSES, CONNECTIONS, OURS, PREFIX, PRIMARY, STANDBY, RouteContract


class TestMemoryRouteTable(RouteContract):
    """MemoryRouteTable."""

    @pytest.fixture
    def table(self) -> MemoryRouteTable:
        return MemoryRouteTable((STANDBY, PRIMARY, PREFIX), ADDRESSES, CONNECTIONS)

    async def test_real_changes_are_told_and_repetitions_are_not(self, table: MemoryRouteTable):
        for _ in range(2):
            await table.add(OURS)
        for _ in range(2):
            await table.remove(OURS)

        words = "default via 198.51.100.1 dev wan2 metric 90 (ours)"
        assert list(table.changes) == [f"add {words}", f"remove {words}"]
