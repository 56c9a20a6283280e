"""The host's main IPv4 route table behind its door, by the commands an operator would type: `ip` and `conntrack`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any, Final

from agent.errors import ActionFailed
from agent.ports import Route
from runbooks.command import Answer, Runner, find_program, run_program

# Every route that we add carries this number, and we remove no route without it. iproute2's rt_protos gives 0-18, 42,
# 99 and 186-192 to the kernel and to routing daemons; 193 is the first behind them.
OUR_PROTOCOL: Final = "193"
METRIC_MAX: Final = 2**32 - 1
INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,14}")  # a leading "-" would make it an option
SPECIAL_KINDS: Final = {"6": "blackhole", "7": "unreachable", "8": "prohibit", "9": "throw"}
DROPPED: Final = re.compile(r"(\d+) flow entries have been deleted")


class IpRouteTable:
    """
    The main table of the kernel. An attempt that was answered with an error is followed by a look: a route that is
    there (or gone) as wanted is success, whatever the words of the error were.

    `prefix` is put before every command, as in ("ip", "netns", "exec", "branch").
    """

    def __init__(self, program: str = "ip", runner: Runner = run_program, prefix: Sequence[str] = ()) -> None:
        self._runner = runner
        # A missing program is told when a command is wanted, not here: an agent that cannot act still has to watch.
        self._ip = find_program(program) or program
        self._conntrack = find_program("conntrack")
        self._prefix = (find_program(prefix[0]) or prefix[0], *prefix[1:]) if prefix else ()

    async def routes(self, destination: str) -> tuple[Route, ...]:
        """
        Return the routes for exactly *destination*, best metric first, of one metric in the kernel's order.

        One that the kernel passes over for want of a carrier is among them: when the carrier is back, it is used again.
        """
        wanted = normal_destination(destination)
        listed = await self._listed("-N", "route", "show", "table", "main", "exact", wanted)
        found = (_parsed(wanted, entry) for entry in listed if not entry.get("tos"))
        return tuple(sorted(found, key=lambda route: route.metric))

    async def add(self, route: Route) -> None:
        """Add *route* under our protocol number. Raises ActionFailed when another holds its place, or on refusal."""
        answer = await self._change("add", route)
        if answer.code != 0 and not await self._has(route):
            raise ActionFailed(f"route {text(route)} was not added: {answer.complaint}")

    async def remove(self, route: Route) -> None:
        """Remove *route* by its full specification, our protocol number included. Raises ActionFailed."""
        if not route.ours:
            raise ActionFailed(f"route {text(route)} is not ours: it stays")
        answer = await self._change("del", route)
        if answer.code != 0 and await self._has(route):
            raise ActionFailed(f"route {text(route)} was not removed: {answer.complaint}")

    async def forget_connections(self, translated_source: str) -> int:
        """
        Drop the entries that were source-translated to this address; an interface name stands for its addresses.

        `--src-nat ADDRESS` takes only entries whose original source differs: connections of our own from it stay.
        Returns 0 when nothing matched or there is no `conntrack` program.

        Raises:
            ActionFailed: the program answered neither a count nor "nothing matched".
        """
        if self._conntrack is None:
            return 0
        dropped = 0
        for address in await self._addresses(translated_source):
            answer = await self._run(self._conntrack, "-D", "-f", "ipv4", "--src-nat", address)
            count = DROPPED.search(answer.complaint)
            if count is None:
                raise ActionFailed(f"connections of {address} were not dropped: {answer.complaint}")
            dropped += int(count[1])
        return dropped

    async def _addresses(self, source: str) -> tuple[str, ...]:
        try:
            return (str(IPv4Address(source)),)
        except AddressValueError:
            listed = await self._listed("address", "show", "dev", interface_name(source))
            held = (info for entry in listed for info in entry.get("addr_info", ()))
            return tuple(str(info["local"]) for info in held if "local" in info)

    async def _has(self, route: Route) -> bool:
        return any(is_same(route, found) for found in await self.routes(route.destination))

    async def _change(self, verb: str, route: Route) -> Answer:
        words = ["-4", "route", verb, normal_destination(route.destination)]
        if route.gateway:
            words += ["via", gateway_address(route.gateway)]
        if route.interface:
            words += ["dev", interface_name(route.interface)]
        words += ["metric", str(checked_metric(route.metric)), "proto", OUR_PROTOCOL, "table", "main"]
        return await self._run(self._ip, *words)

    async def _listed(self, *words: str) -> list[dict[str, Any]]:
        answer = await self._run(self._ip, "-j", "-4", *words)
        if answer.code != 0:
            raise ActionFailed(f"ip {' '.join(words)}: {answer.complaint or f'exit code {answer.code}'}")
        if answer.is_cut:
            raise ActionFailed(f"ip {' '.join(words)}: more than 64 KiB of output")
        try:
            return list(json.loads(answer.output or "[]"))
        except ValueError as error:
            raise ActionFailed(f"ip {' '.join(words)}: answer is no JSON: {error}") from error

    async def _run(self, *arguments: str) -> Answer:
        return await self._runner((*self._prefix, *arguments))


def text(route: Route) -> str:
    """Return *route* in the words of `ip route`."""
    via = f" via {route.gateway}" if route.gateway else ""
    dev = f" dev {route.interface}" if route.interface else ""
    return f"{route.destination}{via}{dev} metric {route.metric}{' (ours)' if route.ours else ''}"


def is_same(wanted: Route, found: Route) -> bool:
    """Tell whether *found* is our route *wanted*; a next hop that *wanted* leaves open may be any."""
    return (
        found.ours
        and found.metric == wanted.metric
        and normal_destination(found.destination) == normal_destination(wanted.destination)
        and wanted.gateway in ("", found.gateway)
        and wanted.interface in ("", found.interface)
    )


def normal_destination(destination: str) -> str:
    """Return *destination* as "default" or "ADDRESS/LENGTH". Raises ActionFailed when it is neither."""
    if destination == "default":
        return destination
    try:
        network = IPv4Network(destination)
    except ValueError as error:
        raise ActionFailed(f'{destination!r} is neither "default" nor an IPv4 prefix: {error}') from error
    return "default" if network.prefixlen == 0 else str(network)


def gateway_address(gateway: str) -> str:
    """Return *gateway* when it is an IPv4 address. Raises ActionFailed."""
    try:
        return str(IPv4Address(gateway))
    except AddressValueError as error:
        raise ActionFailed(f"gateway {gateway!r} is no IPv4 address") from error


def interface_name(name: str) -> str:
    """Return *name* when the kernel could have an interface of that name. Raises ActionFailed."""
    if INTERFACE_NAME.fullmatch(name) is None:
        raise ActionFailed(f"{name!r} is no interface name")
    return name


def checked_metric(metric: int) -> int:
    """Return *metric* when ours may have it: 1 or more, since 0 means "any" on removal. Raises ActionFailed."""
    if not 1 <= metric <= METRIC_MAX:
        raise ActionFailed(f"metric {metric} is outside 1..{METRIC_MAX}")
    return metric


def _parsed(destination: str, entry: Mapping[str, Any]) -> Route:
    """Return one entry of `ip -j route`. Several next hops are joined by commas: it goes by no single line."""
    hops = entry.get("nexthops") or (entry,)
    kind = str(entry.get("type", ""))
    return Route(
        destination=destination,
        gateway=",".join(str(hop["gateway"]) for hop in hops if "gateway" in hop),
        interface=SPECIAL_KINDS.get(kind, kind) or ",".join(str(hop.get("dev", "")) for hop in hops),
        metric=int(entry.get("metric", 0)),
        ours=str(entry.get("protocol", "")) == OUR_PROTOCOL,
    )
