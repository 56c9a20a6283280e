"""
Verb `route`: the host's best route goes by the wanted line. `{route: {to: standby, destination: default, metric: 5}}`

The site's own routes are never touched, so that probes bound to a line keep their next hop: the way to the standby line
is one more route of better metric, and the way back is its removal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.core.model import Request, Value
from agent.errors import ActionFailed
from agent.ports import ActionContext, ActionKind, Route, RouteTable
from runbooks.routes import METRIC_MAX, normal_destination, text

METRIC_STEP: Final = 10  # how far below the best route of the site ours is put: room for an operator's hand in between
METRIC_SITE: Final = 100  # what the best route of the site is taken for when it is worse, or not there at the moment
ROLES: Final = ("primary", "standby")


@dataclass(frozen=True, slots=True)
class RouteParams:
    """
    Role of the wanted line, what is routed ("default" or a prefix), our route's metric (None: below the best).

    Raises:
        ValueError: the message begins with the name of the key.
    """

    to: str
    destination: str = "default"
    metric: int | None = None

    def __post_init__(self) -> None:
        try:
            normal_destination(self.destination)
        except ActionFailed as error:
            raise ValueError(f"destination: {error}") from error
        if self.metric is not None and not 1 <= self.metric <= METRIC_MAX:
            raise ValueError(f"metric: must be 1 to {METRIC_MAX}, got {self.metric}")


@dataclass(frozen=True, slots=True)
class Way:
    """How traffic leaves by one line. An empty gateway or interface may be any; `source` is address or interface."""

    line: str
    is_primary: bool
    gateway: str
    interface: str
    source: str

    def carries(self, route: Route) -> bool:
        """Tell whether *route* goes by this line."""
        return (not self.interface or route.interface == self.interface) and (
            not self.gateway or route.gateway == self.gateway
        )


class RouteAction:
    """Moves traffic between the lines of the site."""

    def __init__(self, lines: Mapping[str, Any], table: RouteTable) -> None:
        self._lines = lines
        self._table = table

    async def perform(self, request: Request) -> str:
        """Make it so that the best route goes by line `to`, then drop what the kernel tracks of line `from`."""
        words = dict(request.wanted)
        return await self._make_it_so(words, wanted=words.get("to"), old=words.get("from"))

    async def undo(self, request: Request) -> str:
        """Make it so that the best route goes by line `from` again, then drop what the kernel tracks of line `to`."""
        words = dict(request.wanted)
        return await self._make_it_so(words, wanted=words.get("from"), old=words.get("to"))

    async def _make_it_so(self, words: Mapping[str, Value], wanted: Value, old: Value) -> str:
        destination, metric = words.get("destination") or "default", words.get("metric")
        if not isinstance(destination, str) or not (metric is None or isinstance(metric, int)):
            raise ActionFailed(f"destination {destination!r} or metric {metric!r} is of the wrong type")
        way, old_way = self._way(wanted), self._way(old)
        routes = await self._without_ours_elsewhere(way, destination)
        # Also where the standby's own route is the best one just now: the primary's may only be gone with its carrier,
        # and would take the traffic back the moment it returns, good or not.
        if not way.is_primary and not (_goes_by(way, routes) and routes[0].ours):
            better = Route(destination, way.gateway, way.interface, _better_metric(routes, metric), ours=True)
            await self._table.add(better)
            routes = await self._table.routes(destination)
        if not _goes_by(way, routes):
            raise ActionFailed(f"{destination} does not go by {way.line}; routes: {_listing(routes)}")
        return f"{text(routes[0])}: by {way.line}; {await self._forget(old_way)}"

    async def _without_ours_elsewhere(self, way: Way, destination: str) -> tuple[Route, ...]:
        """Remove routes of ours that go by another line than *way*; return those that are left."""
        routes = await self._table.routes(destination)
        elsewhere = [route for route in routes if route.ours and not way.carries(route)]
        for route in elsewhere:
            await self._table.remove(route)
        return await self._table.routes(destination) if elsewhere else routes

    async def _forget(self, old: Way) -> str:
        """Drop the old line's connections. The route has moved already: trouble here is told and fails nothing."""
        if not old.source:
            return f"no address of {old.line} known, no connection dropped"
        try:
            return f"{await self._table.forget_connections(old.source)} connections of {old.line} dropped"
        except ActionFailed as error:
            return f"connections of {old.line} were not dropped: {error}"

    def _way(self, line: Value) -> Way:
        config = self._lines.get(line) if isinstance(line, str) else None
        if config is None:
            raise ActionFailed(f"no line {line!r}; known: {', '.join(sorted(self._lines))}")
        gateway, interface, source = (_word(config, name) for name in ("gateway", "interface", "source"))
        if not gateway and not interface:
            raise ActionFailed(f"line {line} names neither gateway nor interface")
        return Way(str(line), _word(config, "role") == "primary", gateway, interface, source or interface)


def _word(config: object, name: str) -> str:
    """Return what a line's config says of *name*, "" when it says nothing."""
    value = getattr(config, name, None)
    return "" if value is None else str(value)


def _goes_by(way: Way, routes: Sequence[Route]) -> bool:
    return bool(routes) and way.carries(routes[0])


def _better_metric(routes: Sequence[Route], given: int | None) -> int:
    """Return *given*, or a metric below that of every route there. Raises ActionFailed when it would not be better."""
    best = min((route.metric for route in routes), default=METRIC_SITE)
    metric = max(1, min(best, METRIC_SITE) - METRIC_STEP) if given is None else given
    if routes and metric >= best:
        cure = "give the site's own routes a higher one"
        raise ActionFailed(f"metric {metric} is not better than that of {text(routes[0])}; {cure}")
    return metric


def _listing(routes: Sequence[Route]) -> str:
    return ", ".join(map(text, routes)) or "none"


def _make(context: ActionContext) -> RouteAction:
    return RouteAction(context.lines, context.routes)


def _expects(params: RouteParams, bind: Mapping[str, str]) -> Mapping[str, Value]:
    return {"path.answered": True, "path.line": bind[params.to]}


def _start(params: RouteParams, bind: Mapping[str, str]) -> Mapping[str, Value]:
    other = next(role for role in ROLES if role != params.to)
    return {"path.line": bind[other]}


KIND: Final = ActionKind(
    name="route",
    params=RouteParams,
    channel="kernel-routes",
    resendable=True,
    make=_make,
    expects=_expects,
    start=_start,
)
