"""A line's own end: carrier of its interface, the sockets that are bound to it, and the proof that they leave by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from agent.errors import ProbeFault
from probes.wire.echo import Binding, Echo, Reply, Target
from probes.wire.icmp import EchoSocket
from probes.wire.netlink import Link, LinkWatch, addresses_of, link_named, next_hop
from probes.wire.tcp import TcpEcho

TEST_S: Final = 3600.0
TEST_AGAIN_S: Final = 1.0
# So long the far end's word that a probe came by another line stands without being repeated.
WORD_HOLDS_S: Final = 10.0


class LinePort:
    """
    Owns the sockets of one line and calls *wake* when one of them has something to say.

    `carrier` is None without an interface, and where one was never there: a wrong name in the site file is no dead
    port. An interface that was there and is gone has no carrier. `test_at` is when the self-test is due.
    """

    def __init__(
        self, binding: Binding, gateway: str | None, targets: Iterable[Target], wake: Callable[[], None]
    ) -> None:
        self.binding = binding
        self.carrier: bool | None = None
        self.carrier_since: float | None = None
        self.tested_at: float | None = None
        self._gateway = gateway
        self._targets = tuple(targets)
        self._wake = wake
        self._watch: LinkWatch | None = None
        self._link: Link | None = None
        self.test_at = float("-inf")
        self._test_fault: str | None = "not_seen"
        self._word_fault_until = float("-inf")
        self._icmp: Echo | None = None
        self._tcp: Echo | None = None

    def open(self) -> None:
        """Start to hear of carrier changes."""
        if self.binding.interface is None:
            return
        try:
            self._watch = LinkWatch()
        except OSError:
            return  # a sandbox without AF_NETLINK: the self-test says so
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._wake)

    def close(self) -> None:
        """Let go of every socket."""
        self._close_echoes()
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def fault(self, now: float) -> str | None:
        """Return why nothing that is seen through this port can be trusted, None when it can."""
        return self._test_fault or ("binding_failed" if now < self._word_fault_until else None)

    def test_soon(self) -> None:
        """Make the self-test due."""
        self.test_at = float("-inf")

    def heard(self) -> bool:
        """Tell whether the kernel has said something about links since the last call."""
        return self._watch is not None and self._watch.drain()

    def look(self, now: float) -> bool:
        """Read the carrier; tell whether it changed. A change makes the self-test due."""
        if self.binding.interface is None:
            return False
        was_there = self._link is not None
        try:
            link = link_named(self.binding.interface)
            carrier = link.carrier if link is not None else False if was_there or self.carrier is not None else None
        except ProbeFault:
            link, carrier = self._link, None
        if link is not None and self._link is not None and link.index != self._link.index:
            self._close_echoes()  # another interface under the old name: the sockets are bound to the old one
        self._link = link
        if carrier is self.carrier:
            return False
        self.carrier, self.carrier_since, self.test_at = carrier, now, now
        return True

    def test(self, now: float) -> None:
        """Prove that the sockets leave by this line, opening them where need be. The result is `fault`."""
        self.tested_at = now
        try:
            self._open_echoes()
            for echo in self.echoes():
                echo.check()
            self._check_way()
        except ProbeFault as fault:
            # A socket that the kernel does not hold to the line any more may be bound to an interface of the past.
            self._close_echoes()
            self._test_fault = fault.fault
        else:
            self._test_fault = None
        self.test_at = now + (TEST_S if self._test_fault is None else TEST_AGAIN_S)

    def send(self, target: Target, sequence: int) -> None:
        """Ask *target* by this line. Raises ProbeFault: send_failed, binding_failed."""
        echo = self._icmp if target.port is None else self._tcp
        if echo is None:
            raise ProbeFault(self._test_fault or "binding_failed", str(target))
        try:
            echo.send(target, sequence)
        except ProbeFault as fault:
            if fault.fault == "binding_failed":
                self.test_at = float("-inf")
            raise

    def drain(self, now: float) -> list[Reply]:
        """Return all that has come back; a far end that saw another source than ours is a failed binding."""
        replies: list[Reply] = []
        for echo in self.echoes():
            try:
                replies.extend(echo.drain())
            except ProbeFault:
                self.test_at = float("-inf")
        for reply in replies:
            if reply.told is not None:
                self._word_fault_until = float("-inf") if self.is_own(reply.told) else now + WORD_HOLDS_S
        return replies

    def is_own(self, address: str) -> bool:
        """Tell whether *address* is the source of this line; where that is not known nothing contradicts it."""
        if self.binding.source is not None:
            return address == self.binding.source
        if self._link is None:
            return self.binding.interface is None
        try:
            return address in addresses_of(self._link.index)
        except ProbeFault:
            return False

    def echoes(self) -> list[Echo]:
        """Return the sockets that are open."""
        return [echo for echo in (self._icmp, self._tcp) if echo is not None]

    def _check_way(self) -> None:
        """Ask the kernel whether the farthest target is reached by the gateway. Raises ProbeFault: binding_failed."""
        far = [target.address for target in self._targets if target.address != self._gateway]
        if self._gateway is None or self._link is None or not self.carrier or not far:
            return
        try:
            hop = next_hop(far[-1], self._link.index, self.binding.source)
        except ProbeFault as fault:
            raise ProbeFault("binding_failed", fault.detail) from fault
        if hop.gateway != self._gateway or hop.ifindex != self._link.index:
            # Without a route by this interface the kernel looks for headquarters on the wire itself, and finds nobody.
            raise ProbeFault("binding_failed", f"the way to {far[-1]} is by {hop.gateway}, not by {self._gateway}")

    def _open_echoes(self) -> None:
        loop = asyncio.get_running_loop()
        if self._icmp is None and any(target.port is None for target in self._targets):
            self._icmp = EchoSocket(self.binding)
            loop.add_reader(self._icmp.fileno(), self._wake)
        if self._tcp is None and any(target.port is not None for target in self._targets):
            self._tcp = TcpEcho(self.binding)
            loop.add_reader(self._tcp.fileno(), self._wake)

    def _close_echoes(self) -> None:
        for echo in self.echoes():
            asyncio.get_running_loop().remove_reader(echo.fileno())
            echo.close()
        self._icmp = self._tcp = None
