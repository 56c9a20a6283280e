"""What the answers of a line mean: do the probes leave by it, and who answers on the way?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.doctor.asked import CURES, OTHERWISE, Asked, Heard, Reading, fault_text
from agent.doctor.finding import Addresses, Finding, ok, wrong
from agent.errors import ProbeFault
from probes.line_config import LineConfig
from probes.line_service import OPEN, SERVICE
from probes.wire.netlink import link_named, next_hop

SILENT_CURES: Final = {  # rung -> what to look at
    "cpe": "is the provider's box on, is this its address?",
    "edge": "the line is dead, or that address answers no echo: try `{try_it}`, and write one that does",
    "hq": "the line is dead, or headquarters lets no echo in: try `{try_it}`, and write an address that answers",
    "second_site": "the line is dead, or that site lets no echo in: try `{try_it}`, and write an address that answers",
}
METRICS: Final = {"primary": 100, "standby": 200}
SERVICE_CURE: Final = "is the service up, does a firewall there keep this line's address out?"


def is_enough(asked: Asked, heard: Heard) -> bool:
    """Tell whether every rung has answered, or could not be asked; ratios take longer and are of no matter here."""
    points = [f"{rung}.rtt_s" for rung in rungs(asked.config)]
    points += [OPEN] if SERVICE in asked.config.targets else []
    return all(point in heard.seen for point in points)


def rungs(config: LineConfig) -> list[str]:
    """Return the rungs of the line, nearest first."""
    return [rung for rung in config.parsed() if rung != SERVICE]


def read_line(asked: Asked, heard: Heard) -> list[Finding]:
    """Return what keeps the whole line from being seen, else what each of its targets said."""
    if heard.crash is not None:
        return [wrong(asked.equipment, f"the probe ended: {heard.crash}", OTHERWISE)]
    found = [*rung_findings(asked, heard)]
    if all(one.cure == "" for one in found):
        return found
    reason = why_unseen(asked, heard)
    return found if reason is None else [wrong(asked.equipment, *reason)]


def rung_findings(asked: Asked, heard: Heard) -> Iterator[Finding]:
    """Give what each target said."""
    config: LineConfig = asked.config
    targets = config.parsed()
    for rung in rungs(config):
        about, target = f"{asked.equipment} {rung}", targets[rung]
        rtt_s, fault = heard.value(f"{rung}.rtt_s"), heard.fault(f"{rung}.rtt_s")
        if rtt_s is not None:
            yield ok(about, f"{target} answers in {time_text(rtt_s)}")
        elif fault is not None:
            yield wrong(about, f"{target}: {fault_text(fault)}", CURES.get(fault, OTHERWISE))
        else:
            cure = SILENT_CURES[rung].format(try_it=command(config, rung))
            yield wrong(about, f"{target} does not answer", cure)
    if SERVICE in targets:
        yield service_finding(asked, heard)


def time_text(rtt_s: float) -> str:
    """Return a round-trip time as people read it; one echo says nothing of parts of a millisecond."""
    return f"{1000 * rtt_s:.0f} ms" if rtt_s >= 0.001 else "less than 1 ms"


def service_finding(asked: Asked, heard: Heard) -> Finding:
    """Return whether the service at headquarters opens a connection."""
    about, target = f"{asked.equipment} {SERVICE}", asked.config.parsed()[SERVICE]
    if heard.value(OPEN) is True:
        return ok(about, f"{target} opens a connection")
    fault = heard.fault(OPEN)
    return wrong(about, f"{target} opens no connection{f': {fault_text(fault)}' if fault else ''}", SERVICE_CURE)


def command(config: LineConfig, rung: str) -> str:
    """Return what a person types to try *rung* by this line."""
    target = config.parsed()[rung]
    way = config.interface or config.source
    return (
        f"ping -I {way} {target}"
        if target.port is None
        else f"nc -s {config.source or way} -zv {target.address} {target.port}"
    )


# ---------------------------------------------------------------- why nothing is seen of a line


def why_unseen(asked: Asked, heard: Heard) -> tuple[str, str] | None:
    """Return what is wrong with the line's own end and the cure, None where nothing is."""
    config: LineConfig = asked.config
    addresses = asked.patient.kernel.addresses()
    if config.interface is None:
        held = {str(one.ip) for group in addresses.values() for one in group}
        if config.source not in held:
            return f"this host has no address {config.source}", f"mend source; here: {', '.join(sorted(held))}"
        return None
    try:
        link = link_named(config.interface)
        if link is None:
            return f"there is no interface {config.interface}", f"mend interface; here: {', '.join(sorted(addresses))}"
        if not link.is_up:
            return f"{config.interface} is down", f"ip link set {config.interface} up"
        if not link.carrier:
            return f"{config.interface} has no carrier", "look at the cable and at the provider's box"
        return why_no_way(config, link.index, addresses)
    except ProbeFault as fault:
        return fault_text(fault.fault, fault.detail), OTHERWISE


def why_no_way(config: LineConfig, index: int, addresses: Addresses) -> tuple[str, str] | None:
    """Return what is wrong with address and route of an interface that is there, None where nothing is."""
    own = [str(one.ip) for one in addresses.get(str(config.interface), ())]
    if not own:
        return f"{config.interface} has no IPv4 address", "give it the address that the provider says"
    if config.source is not None and config.source not in own:
        return f"{config.interface} has no address {config.source}", f"mend source; here: {', '.join(own)}"
    far = [target.address for target in config.parsed().values() if target.address != config.gateway]
    if config.gateway is None or not far:
        return None
    hop = next_hop(far[-1], index, config.source)
    if hop.gateway == config.gateway and hop.ifindex == index:
        return None
    by = f"by {hop.gateway}" if hop.gateway else "on the wire itself"
    metric = METRICS[config.role]
    cure = f"ip route add default via {config.gateway} dev {config.interface} metric {metric}"
    return (
        f"the kernel looks for {far[-1]} {by}, not by {config.gateway}",
        f"mend gateway, or give the line a route: {cure}",
    )


READING: Final = Reading(stream=read_line, is_enough=is_enough)
