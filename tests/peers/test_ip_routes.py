"""The kernel's route table keeps the contract of every route table: real `ip`, real `conntrack`, own namespace."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator

import pytest

from agent.errors import ActionFailed
from agent.ports import Route
from runbooks.routes import IpRouteTable
from tests.runbooks.route_contract import ADDRESSES, CONNECTIONS, OURS, PREFIX, PRIMARY, STANDBY, RouteContract

NUMBER = itertools.count()


def run(*arguments: str) -> str:
    """Run *arguments* and return what they print; a failure fails the test with what they said."""
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(arguments)}: {ended.stderr}"
    return ended.stdout


@pytest.fixture
def inside() -> Iterator[tuple[str, ...]]:
    """Give the words that run a command in a new namespace with interfaces wan1 and wan2, routes and connections."""
    space = f"changeover-{os.getpid()}-{next(NUMBER)}"
    within = ("ip", "netns", "exec", space)
    run("ip", "netns", "add", space)
    try:
        for name, (address,) in ADDRESSES.items():
            run(*within, "ip", "link", "add", name, "type", "veth", "peer", "name", f"far-{name}")
            run(*within, "ip", "address", "add", f"{address}/24", "dev", name)
            for end in (name, f"far-{name}"):
                run(*within, "ip", "link", "set", end, "up")
        for route in (PRIMARY, STANDBY, PREFIX):
            via = ("via", route.gateway, "dev", route.interface, "metric", str(route.metric))
            run(*within, "ip", "route", "add", route.destination, *via)
        for port, seen in enumerate(CONNECTIONS, 1000):
            ends = ("-s", seen.original_source, "-d", "203.0.113.1", "--sport", str(port), "--dport", "443")
            translated = ("--src-nat", seen.translated_source) if seen.original_source != seen.translated_source else ()
            run(*within, "conntrack", "-I", "-p", "udp", "-t", "600", *ends, *translated)
        yield within
    finally:
        run("ip", "netns", "delete", space)


class TestIpRouteTable(RouteContract):
    """IpRouteTable."""

    @pytest.fixture
    def table(self, inside: tuple[str, ...]) -> IpRouteTable:
        return IpRouteTable(prefix=inside)

    async def test_a_connection_of_the_host_itself_stays(self, table: IpRouteTable, inside: tuple[str, ...]):
        await table.forget_connections("192.0.2.2")

        left = run(*inside, "conntrack", "-L")
        assert "src=192.0.2.2 dst=203.0.113.1" in left
        assert "dst=198.51.100.2" in left

    async def test_routes_of_other_kinds_are_told_and_go_by_no_line(self, table: IpRouteTable, inside: tuple[str, ...]):
        hops = ("nexthop", "via", "192.0.2.1", "dev", "wan1", "nexthop", "via", "198.51.100.1", "dev", "wan2")
        run(*inside, "ip", "route", "add", "10.1.0.0/16", *hops)
        run(*inside, "ip", "route", "add", "blackhole", "10.2.0.0/16")
        run(*inside, "ip", "route", "add", "10.3.0.0/16", "via", "192.0.2.1", "dev", "wan1", "tos", "0x10")

        assert await table.routes("10.1.0.0/16") == (
            Route("10.1.0.0/16", "192.0.2.1,198.51.100.1", "wan1,wan2", 0, ours=False),
        )
        assert await table.routes("10.2.0.0/16") == (Route("10.2.0.0/16", "", "blackhole", 0, ours=False),)
        assert await table.routes("10.3.0.0/16") == ()  # only for packets of that type of service

    async def test_a_route_of_ours_that_went_with_its_interface_counts_as_removed(
        self, table: IpRouteTable, inside: tuple[str, ...]
    ):
        await table.add(OURS)
        run(*inside, "ip", "link", "delete", "wan2")

        await table.remove(OURS)

        assert await table.routes("default") == (PRIMARY,)

    async def test_a_namespace_that_is_not_there_is_told(self):
        with pytest.raises(ActionFailed, match="nowhere-at-all"):
            await IpRouteTable(prefix=("ip", "netns", "exec", "nowhere-at-all")).routes("default")
