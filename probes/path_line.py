"""By which line did an answer come? Told from our address in it and from the interface it came in by."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from agent.errors import ProbeFault
from agent.ports import Suspect
from probes.line_config import LineConfig
from probes.wire.echo import Reply
from probes.wire.netlink import addresses_of, link_named


def line_of(reply: Reply, lines: Mapping[str, LineConfig]) -> str | Suspect | None:
    """
    Return the name of the line that *reply* came by, None when it fits none of *lines*, or several.

    Suspect: our address in it is of one line, and it came in by another.
    """
    address = reply.told or reply.destination
    interface = name_of(reply.ifindex)
    by_address = {name for name, line in lines.items() if address in own_addresses(line)}
    by_interface = {name for name, line in lines.items() if interface is not None and interface == line.interface}
    if by_address and by_interface and by_address.isdisjoint(by_interface):
        return Suspect(None, f"{address} is of {shown(by_address)}, the answer came in by {shown(by_interface)}")
    found = by_address & by_interface or by_address or by_interface
    return found.pop() if len(found) == 1 else None


def own_addresses(line: LineConfig) -> tuple[str, ...]:
    """Return the source address of *line*, or the addresses of its interface; none when they cannot be read."""
    if line.source is not None:
        return (line.source,)
    try:
        link = link_named(line.interface) if line.interface is not None else None
        return addresses_of(link.index) if link is not None else ()
    except ProbeFault:
        return ()


def name_of(ifindex: int) -> str | None:
    """Return the name of an interface, None when it is not known or gone."""
    try:
        return socket.if_indextoname(ifindex) if ifindex else None
    except OSError:
        return None


def shown(lines: set[str]) -> str:
    """Return the names of *lines* in order."""
    return ", ".join(sorted(lines))
