"""What every kind of echo shares: whom it asks, by which line it leaves, and what came back."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final, Protocol

from agent.errors import ProbeFault

INTERFACE_BYTES: Final = 16  # IFNAMSIZ, the closing zero byte included
NOT_OURS: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})  # the address or interface is gone


@dataclass(frozen=True, slots=True)
class Binding:
    """By which line a socket leaves: interface, source address, both, or (None, None) the way the host routes."""

    interface: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.interface, self.source))) or "the host's own way"


@dataclass(frozen=True, slots=True)
class Target:
    """
    Whom an echo asks: an IPv4 address by ICMP (port None), or an address and port by TCP.

    With `tells_source` the far end sends, once connected, one line with the source address that it saw.
    """

    address: str
    port: int | None = None
    tells_source: bool = False

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.address}{port}{'/source' if self.tells_source else ''}"


@dataclass(frozen=True, slots=True)
class Reply:
    """
    What came back for the echo of this `sequence`.

    `received_at` is in boot seconds. `destination` is our own address in the answer, `ifindex` the interface by which
    it came in (0 where that is not known), `told` the source address that the far end says it saw. A `fault` names how
    a TCP echo ended without an answer: refused, closed, unreachable, timed_out, bad_reply.
    """

    target: Target
    sequence: int
    received_at: float
    destination: str | None = None
    ifindex: int = 0
    told: str | None = None
    fault: str | None = None


class Echo(Protocol):
    """A socket, or a bundle of them, that asks and never waits."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while something waits to be drained."""
        ...

    def send(self, target: Target, sequence: int) -> None:
        """Ask *target* under *sequence*, a number never used before. Raises ProbeFault: send_failed, binding_failed."""
        ...

    def drain(self) -> Sequence[Reply]:
        """Return everything that has come back since the last call."""
        ...

    def check(self) -> None:
        """Read the binding back. Raises ProbeFault: binding_failed."""
        ...

    def close(self) -> None:
        """Let go of every descriptor."""
        ...


def parse_target(text: str) -> Target:
    """
    Return the target that *text* names: "203.0.113.1", "203.0.113.1:443" or "203.0.113.1:7/source".

    Raises:
        ValueError: not one of these forms. Names are refused, for a line is judged without DNS.
    """
    place, slash, word = text.partition("/")
    address, colon, port = place.partition(":")
    if slash and word != "source":
        raise ValueError(f"{text!r}: after the slash only the word source is known")
    if slash and not colon:
        raise ValueError(f"{text!r}: only a TCP target (address:port) can tell the source it saw")
    if colon and not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise ValueError(f"{text!r}: the port must be within 1 and 65535")
    return Target(parse_address(address), int(port) if colon else None, bool(slash))


def parse_address(text: str) -> str:
    """Return *text* when it is the IPv4 address of a host. Raises ValueError."""
    try:
        host = IPv4Address(text)
    except AddressValueError as error:
        raise ValueError(f"{text!r} is no IPv4 address; names are not looked up") from error
    if host.is_multicast or host.is_unspecified or str(host) == "255.255.255.255":
        raise ValueError(f"{text!r} is no host's address")
    return str(host)


def bind(endpoint: socket.socket, binding: Binding) -> None:
    """Make *endpoint* leave by *binding*. Raises ProbeFault: binding_failed."""
    try:
        if binding.interface is not None:
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, binding.interface.encode() + b"\0")
        if binding.source is not None:
            endpoint.bind((binding.source, 0))
    except OSError as error:
        raise ProbeFault("binding_failed", f"{binding}: {error.strerror}") from error


def check_bound(endpoint: socket.socket, binding: Binding) -> None:
    """Read back from the kernel that *endpoint* leaves by *binding*. Raises ProbeFault: binding_failed."""
    try:
        device = endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, INTERFACE_BYTES).rstrip(b"\0").decode()
        source = endpoint.getsockname()[0]
    except OSError as error:
        raise ProbeFault("binding_failed", f"{binding.interface}: {error.strerror}") from error
    if binding.interface is not None and device != binding.interface:
        raise ProbeFault("binding_failed", f"bound to {device or 'no interface'} instead of {binding.interface}")
    if binding.source is not None and source != binding.source:
        raise ProbeFault("binding_failed", f"bound to {source} instead of {binding.source}")


def send_fault(error: OSError, target: Target) -> ProbeFault:
    """Return the fault that a failed send to *target* is: of the binding where address or interface is gone."""
    fault = "binding_failed" if error.errno in NOT_OURS else "send_failed"
    return ProbeFault(fault, f"{target}: {error.strerror}")
