"""What the verb `route` needs: program, permission, the standby's gateway in reach, room below the site's metric."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Final

from agent.core.model import Mode
from agent.core.runbook import Runbook
from agent.doctor.finding import ROUTES, Finding, Patient, note, ok, wrong
from agent.errors import ActionFailed
from agent.ports import Route
from runbooks import ACTIONS
from runbooks.routes import text

CAP_NET_ADMIN: Final = 12
METRIC_LEAST: Final = 2  # ours must be better, and 0 is what no route of ours may have
LINKDOWN: Final = "ignore_routes_with_linkdown"
METRIC_CURE: Final = (
    "give the site's own routes higher ones, the primary 100, the standby 200 (ifupdown: metric 100, systemd-networkd: "
    "RouteMetric=100, NetworkManager: ipv4.route-metric 100)"
)


async def check_route(patient: Patient) -> list[Finding]:
    """Return what each runbook that moves routes would meet."""
    books = patient.movers()
    if not books:
        return []
    if patient.kernel.program("ip") is None:
        return [wrong("route", "the program ip is not installed", "apt install iproute2")]
    found = [check_permission(patient, books)]
    for book in books:
        found += check_gateway(patient, book)
        found += await check_table(patient, book)
    return found


def check_permission(patient: Patient, books: Sequence[Runbook]) -> Finding:
    """Return whether this user may change routes."""
    if patient.kernel.has_capability(CAP_NET_ADMIN):
        return ok("route", "this user may change routes (CAP_NET_ADMIN)")
    acting = [book.name for book in books if book.mode in (Mode.ASK, Mode.AUTO)]
    if not acting:
        cure = "before a runbook gets mode ask or auto, give the service CAP_NET_ADMIN"
        return note("route", "this user may not change routes; nothing here would yet", cure)
    cure = "give the service CAP_NET_ADMIN; if it has it, try the doctor as root"
    return wrong("route", f"this user may not change routes, and {', '.join(acting)} would", cure)


def check_gateway(patient: Patient, book: Runbook) -> list[Finding]:
    """Return whether the gateway of the line that *book* enters lies on the network of that line's interface."""
    line = patient.config.lines[book.enters]
    about = f"route {book.enters}"
    if not line.gateway:
        return []
    addresses = patient.kernel.addresses()
    gateway = IPv4Address(line.gateway)
    if line.interface is not None:
        own = addresses.get(line.interface, ())
        if not own:
            return []  # the probe of the line tells what is wrong with its interface
    else:
        own = tuple(one for group in addresses.values() for one in group if str(one.ip) == line.source)
    networks = ", ".join(str(one.network) for one in own) or "none"
    if any(gateway in one.network for one in own):
        return [ok(about, f"gateway {gateway} is on the network of {line.interface or line.source}")]
    cure = "mend gateway, or the interface's address and netmask: the kernel would refuse the route"
    return [wrong(about, f"gateway {gateway} is on no network of {line.interface or line.source} ({networks})", cure)]


async def check_table(patient: Patient, book: Runbook) -> list[Finding]:
    """Return whether a route of ours can be better than those of the site, and whether these go by the right line."""
    destination, metric = wanted(book)
    about = f"route {destination}"
    try:
        routes = await patient.around.routes.routes(destination)
    except ActionFailed as error:
        return [wrong(about, str(error), "mend what `ip route` complains of")]
    own = [route for route in routes if not route.ours]
    if not own:
        cure = "give each line one of its own in the network's configuration, the primary the lower metric"
        return [wrong(about, "this host has no such route", cure)]
    best = own[0]
    if len(own) < len(routes):
        return [note(about, f"the agent has moved the traffic: {text(routes[0])}")]
    if best.metric < METRIC_LEAST or (metric is not None and metric >= best.metric):
        limit = (
            f"nothing can be better than metric {best.metric}" if metric is None else f"metric {metric} is not better"
        )
        return [wrong(about, f"{limit}: {text(best)}", METRIC_CURE)]
    leaves = patient.config.lines[book.leaves]
    if not goes_by(leaves, best):
        cure = f"give the route of {book.leaves} the lowest metric, or mend its interface and gateway"
        return [wrong(about, f"the best one is {text(best)}, which is not {book.leaves}", cure)]
    return [ok(about, f"goes by {book.leaves}, and a better route fits before it: {text(best)}")]


def wanted(book: Runbook) -> tuple[str, int | None]:
    """Return the destination that *book* moves, and the metric that its script names."""
    words = next(dict(step.wanted) for step in book.steps if ACTIONS[step.verb].channel == ROUTES)
    metric = words.get("metric")
    return str(words.get("destination") or "default"), metric if isinstance(metric, int) else None


def goes_by(line: Any, route: Route) -> bool:
    """Tell whether *route* leaves by *line*."""
    return line.interface in (None, route.interface) and line.gateway in (None, route.gateway)


async def check_conntrack(patient: Patient) -> list[Finding]:
    """Return whether connections of the old line can be dropped."""
    if not patient.movers():
        return []
    if patient.kernel.program("conntrack") is None:
        told = (
            "the program conntrack is not installed: translated connections stay on the dead line until they time out"
        )
        return [note("conntrack", told, "apt install conntrack")]
    return [ok("conntrack", "connections of a line that was left can be dropped")]


async def check_linkdown(patient: Patient) -> list[Finding]:
    """Return whether the kernel itself passes over routes whose port is dead."""
    names = [line.interface for line in patient.config.lines.values() if line.interface is not None]
    if not names or not patient.movers():
        return []
    lacking = [name for name in names if not is_set(patient, name)]
    if not lacking:
        return [ok(LINKDOWN, f"set for {', '.join(names)}")]
    told = f"not set for {', '.join(lacking)}: a dead port is left only when the agent moves the route"
    return [note(LINKDOWN, told, f"sysctl -w net.ipv4.conf.all.{LINKDOWN}=1, lasting in /etc/sysctl.d/")]


def is_set(patient: Patient, interface: str) -> bool:
    """Tell whether the setting holds for *interface*, by itself or for all."""
    return any(patient.kernel.setting(f"net/ipv4/conf/{name}/{LINKDOWN}") == "1" for name in ("all", interface))
