"""What every route table has to do: the one in memory and the kernel's pass the same tests."""

from __future__ import annotations

import pytest

from agent.errors import ActionFailed
from agent.ports import Route, RouteTable
from drills.simsite.routes import Connection

PRIMARY = Route("default", "192.0.2.1", "wan1", 100, ours=False)
STANDBY = Route("default", "198.51.100.1", "wan2", 200, ours=False)
PREFIX = Route("203.0.113.0/24", "192.0.2.1", "wan1", 20, ours=False)
OURS = Route("default", "198.51.100.1", "wan2", 90, ours=True)

# wan1 and wan2 have these addresses; the first two connections left by wan1 under its address, the third is wan1's own.
ADDRESSES = {"wan1": ("192.0.2.2",), "wan2": ("198.51.100.2",)}
CONNECTIONS = (
    Connection("10.0.0.5", "192.0.2.2"),
    Connection("10.0.0.6", "192.0.2.2"),
    Connection("192.0.2.2", "192.0.2.2"),
    Connection("10.0.0.5", "198.51.100.2"),
)


class RouteContract:
    """Tests of any table that starts with PRIMARY, STANDBY and PREFIX, and tracks CONNECTIONS. Fixture: `table`."""

    async def test_routes_come_best_metric_first_and_foreign_ones_are_not_ours(self, table: RouteTable):
        assert await table.routes("default") == (PRIMARY, STANDBY)
        assert await table.routes("0.0.0.0/0") == (PRIMARY, STANDBY)

    async def test_only_the_exact_destination_is_listed(self, table: RouteTable):
        assert await table.routes("203.0.113.0/24") == (PREFIX,)
        assert await table.routes("203.0.113.7") == ()
        assert await table.routes("203.0.0.0/16") == ()

    async def test_an_added_route_is_ours_and_stands_first(self, table: RouteTable):
        await table.add(OURS)

        assert await table.routes("default") == (OURS, PRIMARY, STANDBY)

    async def test_a_route_that_names_only_its_gateway_goes_out_where_that_is(self, table: RouteTable):
        await table.add(Route("default", OURS.gateway, "", OURS.metric, ours=True))
        await table.add(Route("default", OURS.gateway, "", OURS.metric, ours=True))

        assert await table.routes("default") == (OURS, PRIMARY, STANDBY)

    async def test_adding_the_same_route_again_changes_nothing(self, table: RouteTable):
        await table.add(OURS)
        await table.add(OURS)

        assert await table.routes("default") == (OURS, PRIMARY, STANDBY)

    async def test_a_route_to_one_host_is_added_listed_and_removed(self, table: RouteTable):
        host = Route("203.0.113.7/32", "198.51.100.1", "wan2", 5, ours=True)

        await table.add(Route("203.0.113.7", "198.51.100.1", "wan2", 5, ours=True))
        assert await table.routes("203.0.113.7") == (host,)

        await table.remove(host)
        assert await table.routes("203.0.113.7/32") == ()

    async def test_the_place_of_another_route_is_not_taken(self, table: RouteTable):
        with pytest.raises(ActionFailed, match="was not added"):
            await table.add(Route("default", "198.51.100.1", "wan2", 100, ours=True))

        assert await table.routes("default") == (PRIMARY, STANDBY)

    async def test_a_foreign_route_of_the_same_words_is_not_taken_for_ours(self, table: RouteTable):
        with pytest.raises(ActionFailed, match="was not added"):
            await table.add(Route("default", "198.51.100.1", "wan2", 200, ours=True))

    async def test_a_removed_route_is_gone_and_removing_it_again_changes_nothing(self, table: RouteTable):
        await table.add(OURS)

        await table.remove(OURS)
        await table.remove(OURS)

        assert await table.routes("default") == (PRIMARY, STANDBY)

    async def test_a_foreign_route_is_never_removed(self, table: RouteTable):
        with pytest.raises(ActionFailed, match="not ours"):
            await table.remove(PRIMARY)
        await table.remove(Route("default", "192.0.2.1", "wan1", 100, ours=True))  # foreign, though called ours

        assert await table.routes("default") == (PRIMARY, STANDBY)

    @pytest.mark.parametrize(
        "route",
        [
            Route("default", "198.51.100.1", "wan9", 90, ours=True),
            Route("default", "198.51.100.1", "-help", 90, ours=True),
            Route("default", "203.0.114.9", "", 90, ours=True),
            Route("default", "gateway", "wan2", 90, ours=True),
            Route("default", "198.51.100.1", "wan2", 0, ours=True),
            Route("nowhere", "198.51.100.1", "wan2", 90, ours=True),
            Route("203.0.113.7/24", "198.51.100.1", "wan2", 90, ours=True),
        ],
    )
    async def test_a_route_that_cannot_be_is_refused_and_changes_nothing(self, table: RouteTable, route: Route):
        with pytest.raises(ActionFailed):
            await table.add(route)

        assert await table.routes("default") == (PRIMARY, STANDBY)

    async def test_only_translated_connections_of_the_address_are_dropped(self, table: RouteTable):
        assert await table.forget_connections("192.0.2.2") == 2
        assert await table.forget_connections("192.0.2.2") == 0
        assert await table.forget_connections("198.51.100.2") == 1

    async def test_an_interface_stands_for_its_addresses(self, table: RouteTable):
        assert await table.forget_connections("wan1") == 2
        assert await table.forget_connections("wan1") == 0
