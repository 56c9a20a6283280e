"""A route table in memory that behaves as the kernel's does, for the demo, drills and virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.errors import ActionFailed
from agent.ports import Route
from runbooks.routes import checked_metric, gateway_address, interface_name, is_same, normal_destination, text

CHANGES_MAX: Final = 1000  # a demo may run for days; the last changes are enough to tell what happened


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection as the kernel tracks it: the source that opened it, and the source that the far side sees."""

    original_source: str
    translated_source: str


class MemoryRouteTable:
    """
    The table starts with *routes*; *addresses* gives each interface's addresses, *connections* what is being tracked.

    Only interfaces named in either exist. `changes` keeps the last changes in the words of `ip route`, oldest first.
    """

    def __init__(
        self,
        routes: Iterable[Route] = (),
        addresses: Mapping[str, tuple[str, ...]] | None = None,
        connections: Iterable[Connection] = (),
    ) -> None:
        self._routes = [replace(route, destination=normal_destination(route.destination)) for route in routes]
        self._addresses = dict(addresses or {})
        self._interfaces = {route.interface for route in self._routes} | set(self._addresses)
        self.connections = list(connections)
        self.changes: deque[str] = deque(maxlen=CHANGES_MAX)

    def seen(self, destination: str = "default") -> tuple[Route, ...]:
        """Return the routes for exactly *destination*, best metric first: what `routes` returns, without waiting."""
        wanted = normal_destination(destination)
        found = (route for route in self._routes if route.destination == wanted)
        return tuple(sorted(found, key=lambda route: route.metric))

    async def routes(self, destination: str) -> tuple[Route, ...]:
        """Return the routes for exactly *destination*, best metric first."""
        return self.seen(destination)

    async def add(self, route: Route) -> None:
        """Add *route* as ours. Raises ActionFailed when another holds its place or there is no such interface."""
        self._check(route)
        ours = replace(route, destination=normal_destination(route.destination), ours=True)
        there = next((found for found in self.seen(ours.destination) if found.metric == ours.metric), None)
        if there is None:
            ours = replace(ours, interface=ours.interface or self._interface_of(ours.gateway))
            if ours.interface not in self._interfaces:
                raise ActionFailed(f"route {text(ours)} was not added: no interface of that name")
            self._routes.append(ours)
            self.changes.append(f"add {text(ours)}")
        elif not is_same(ours, there):
            raise ActionFailed(f"route {text(ours)} was not added: {text(there)} holds its place")

    async def remove(self, route: Route) -> None:
        """Remove *route*, which must be ours. Raises ActionFailed."""
        if not route.ours:
            raise ActionFailed(f"route {text(route)} is not ours: it stays")
        self._check(route)
        for found in self.seen(route.destination):
            if is_same(route, found):
                self._routes.remove(found)
                self.changes.append(f"remove {text(found)}")

    async def forget_connections(self, translated_source: str) -> int:
        """Drop connections translated to this address; an interface name stands for its addresses. Return how many."""
        addresses = self._addresses.get(translated_source, (translated_source,))
        kept = [seen for seen in self.connections if not _is_translated_to(seen, addresses)]
        dropped = len(self.connections) - len(kept)
        self.connections = kept
        return dropped

    def _interface_of(self, gateway: str) -> str:
        """Return the interface by which *gateway* is reached, as the routes there know it; "" when none does."""
        return next((route.interface for route in self._routes if gateway and route.gateway == gateway), "")

    @staticmethod
    def _check(route: Route) -> None:
        """Refuse what the real table refuses before it asks the kernel. Raises ActionFailed."""
        checked_metric(route.metric)
        if route.gateway:
            gateway_address(route.gateway)
        if route.interface:
            interface_name(route.interface)


def _is_translated_to(connection: Connection, addresses: tuple[str, ...]) -> bool:
    return connection.translated_source in addresses and connection.original_source != connection.translated_source
