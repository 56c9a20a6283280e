"""Ask the kernel about interfaces and routes, and hear of carrier changes, over rtnetlink. Source: rtnetlink(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.errors import ProbeFault

RTMGRP_LINK: Final = 0x1
HEADER: Final = struct.Struct("@IHHII")  # length, kind, flags, sequence, port
LINK: Final = struct.Struct("@BxHiII")  # family, device type, index, flags, change
ROUTE: Final = struct.Struct("@BBBBBBBBI")  # family, prefix lengths, tos, table, protocol, scope, type, flags
ADDRESS: Final = struct.Struct("@BBBBi")  # family, prefix length, flags, scope, index
ATTRIBUTE: Final = struct.Struct("@HH")
ERROR: Final = struct.Struct("@i")
INDEX: Final = struct.Struct("@I")

REQUEST: Final = 0x1
DUMP: Final = 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 18, 20, 22, 24, 26
IFLA_IFNAME: Final = 3
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY = 1, 2, 4, 5
IFF_UP: Final = 0x1
IFF_LOWER_UP: Final = 0x10000
BUFFER_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Link:
    """An interface that exists. `carrier`: it is up and its other end is there."""

    name: str
    index: int
    is_up: bool
    carrier: bool


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where the kernel would send a packet: `gateway` None means that the target is on the link itself."""

    gateway: str | None
    ifindex: int


class LinkWatch:
    """Readable as soon as anything about a link changes. What it is then, `link_named` tells."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read everything that waits; tell whether there was anything, or whether the kernel had to drop some."""
        changed = False
        while True:
            try:
                self._socket.recv(BUFFER_BYTES)
            except BlockingIOError:
                return changed
            except OSError:
                pass  # ENOBUFS: events were lost, which is news too
            changed = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def link_named(interface: str) -> Link | None:
    """Return the interface as it is now, None when there is none of that name. Raises ProbeFault: failed."""
    wanted = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, interface.encode() + b"\0")
    try:
        answer = _ask(RTM_GETLINK, wanted)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise _fault("failed", f"interface {interface}", error) from error
    for kind, body in answer:
        if kind == RTM_NEWLINK:
            _, _, index, flags, _ = LINK.unpack_from(body)
            is_up = bool(flags & IFF_UP)
            return Link(interface, index, is_up, is_up and bool(flags & IFF_LOWER_UP))
    return None


def addresses_of(index: int) -> tuple[str, ...]:
    """Return the IPv4 addresses of the interface with this *index*, the first one first. Raises ProbeFault: failed."""
    try:
        answer = _ask(RTM_GETADDR, ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0), DUMP)
    except OSError as error:
        raise _fault("failed", "addresses", error) from error
    found = []
    for kind, body in answer:
        if kind == RTM_NEWADDR and ADDRESS.unpack_from(body)[4] == index:
            values = dict(_attributes(body[ADDRESS.size :]))
            local = values.get(IFA_LOCAL, values.get(IFA_ADDRESS))
            if local is not None:
                found.append(socket.inet_ntoa(local))
    return tuple(found)


def next_hop(address: str, ifindex: int, source: str | None = None) -> NextHop:
    """
    Return where the kernel would send a packet for *address* that is bound to the interface *ifindex*.

    Where no route leads out by that interface the kernel takes the target for a neighbour: `gateway` is None then.

    Raises:
        ProbeFault: send_failed (the kernel refuses to send there).
    """
    wanted = ROUTE.pack(socket.AF_INET, 32, 32 if source else 0, 0, 0, 0, 0, 0, 0)
    wanted += _attribute(RTA_DST, socket.inet_aton(address)) + _attribute(RTA_OIF, INDEX.pack(ifindex))
    if source:
        wanted += _attribute(RTA_SRC, socket.inet_aton(source))
    try:
        answer = _ask(RTM_GETROUTE, wanted)
    except OSError as error:
        raise _fault("send_failed", f"route to {address}", error) from error
    for kind, body in answer:
        if kind == RTM_NEWROUTE:
            values = dict(_attributes(body[ROUTE.size :]))
            gateway = values.get(RTA_GATEWAY)
            index = INDEX.unpack(values[RTA_OIF])[0] if RTA_OIF in values else ifindex
            return NextHop(socket.inet_ntoa(gateway) if gateway else None, index)
    raise ProbeFault("send_failed", f"route to {address}: none")


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + padding


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if length < ATTRIBUTE.size:
            return
        yield kind, data[ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]


def _ask(kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
    """Return kind and body of each message of the kernel's answer. Raises OSError with what the kernel found wrong."""
    answer: list[tuple[int, bytes]] = []
    # The kernel answers within the call, so that this does not wait in practice; the deadline is for a broken kernel.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as endpoint:
        endpoint.settimeout(1.0)
        endpoint.send(HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, 1, 0) + body)
        while True:
            for seen, content in _messages(endpoint.recv(BUFFER_BYTES)):
                if seen == NLMSG_ERROR:
                    number = -ERROR.unpack_from(content)[0]
                    raise OSError(number, os.strerror(number))
                if seen == NLMSG_DONE:
                    return answer
                answer.append((seen, content))
            if not flags:
                return answer


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        if length < HEADER.size:
            return
        yield kind, data[HEADER.size : length]
        data = data[length + -length % 4 :]


def _fault(fault: str, what: str, error: OSError) -> ProbeFault:
    return ProbeFault(fault, f"{what}: {error.strerror or 'the kernel does not answer'}")
