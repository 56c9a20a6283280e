"""
TCP echo: a connection that opens is an answer, or one line that the far end sends with the source address it saw.

All echoes of one binding share an epoll descriptor, so that they look like one socket from outside and are drained, as
ICMP is, before anything is counted as lost. A refused connection is no answer: a box on the way can refuse too.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Final

from agent.clock import boot_s
from agent.errors import ProbeFault
from probes.wire.echo import Binding, Reply, Target, bind, check_bound, send_fault

IP_BIND_ADDRESS_NO_PORT: Final = 24
LINE_BYTES_MAX: Final = 64
UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS})
FAULTS: Final = {errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timed_out", errno.ECONNRESET: "closed"}


@dataclass(slots=True)
class _Flight:
    endpoint: socket.socket
    target: Target
    sequence: int
    started_at: float
    is_open: bool = False
    line: bytearray = field(default_factory=bytearray)


class TcpEcho:
    """Many TCP echoes of one binding behind one descriptor. An echo older than *timeout_s* ends as timed_out."""

    def __init__(self, binding: Binding, timeout_s: float = 1.0) -> None:
        self.binding = binding
        self._timeout_s = timeout_s
        self._epoll = select.epoll()
        self._flights: dict[int, _Flight] = {}
        self._ended: list[Reply] = []

    def fileno(self) -> int:
        """Return the epoll descriptor."""
        return self._epoll.fileno()

    def send(self, target: Target, sequence: int) -> None:
        """Start to connect to *target*. Raises ProbeFault: send_failed, binding_failed."""
        endpoint = self._socket()
        try:
            outcome = endpoint.connect_ex((target.address, target.port or 0))
            if outcome not in UNDER_WAY and outcome != errno.ECONNREFUSED:
                raise send_fault(OSError(outcome, os.strerror(outcome)), target)
        except BaseException:
            endpoint.close()
            raise
        if outcome == errno.ECONNREFUSED:  # on the own host this is known at once
            endpoint.close()
            self._ended.append(Reply(target, sequence, boot_s(), fault="refused"))
            return
        self._flights[endpoint.fileno()] = _Flight(endpoint, target, sequence, boot_s())
        self._epoll.register(endpoint.fileno(), select.EPOLLOUT)

    def drain(self) -> list[Reply]:
        """Return how echoes have ended since the last call, answered or not; those past the deadline are given up."""
        now = boot_s()
        replies, self._ended = self._ended, []
        for descriptor, _ in self._epoll.poll(0):
            flight = self._flights[descriptor]
            reply = self._advance(flight, now)
            if reply is not None:
                replies.append(reply)
                self._end(flight)
        for flight in [flight for flight in self._flights.values() if now - flight.started_at > self._timeout_s]:
            replies.append(Reply(flight.target, flight.sequence, now, fault="timed_out"))
            self._end(flight)
        return replies

    def check(self) -> None:
        """Bind a fresh socket and read the binding back. Raises ProbeFault: binding_failed."""
        with self._socket() as endpoint:
            check_bound(endpoint, self.binding)

    def close(self) -> None:
        """Give up what is under way."""
        for flight in list(self._flights.values()):
            self._end(flight)
        self._epoll.close()

    def _socket(self) -> socket.socket:
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # The port is chosen on connecting, so that many echoes a minute do not use up the ports of a source.
            endpoint.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            bind(endpoint, self.binding)
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def _end(self, flight: _Flight) -> None:
        del self._flights[flight.endpoint.fileno()]
        flight.endpoint.close()  # this also takes it out of the epoll set

    def _advance(self, flight: _Flight, now: float) -> Reply | None:
        """Take *flight* as far as it goes without waiting; return how it ended, or None while it is under way."""
        try:
            if not flight.is_open:
                failure = flight.endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failure:
                    return Reply(flight.target, flight.sequence, now, fault=FAULTS.get(failure, "unreachable"))
                flight.is_open = True
                if flight.target.tells_source:
                    self._epoll.modify(flight.endpoint.fileno(), select.EPOLLIN)
            own = str(flight.endpoint.getsockname()[0])
            return (
                self._read_line(flight, now, own)
                if flight.target.tells_source
                else Reply(flight.target, flight.sequence, now, own)
            )
        except BlockingIOError:
            return None
        except OSError as error:
            return Reply(flight.target, flight.sequence, now, fault=FAULTS.get(error.errno or 0, "closed"))

    def _read_line(self, flight: _Flight, now: float, own: str) -> Reply:
        while b"\n" not in flight.line:
            received = flight.endpoint.recv(LINE_BYTES_MAX)
            flight.line += received
            if not received or len(flight.line) > LINE_BYTES_MAX:
                fault = "bad_reply" if received else "closed"
                return Reply(flight.target, flight.sequence, now, own, fault=fault)
        try:
            told = str(IPv4Address(flight.line.partition(b"\n")[0].decode("ascii").strip()))
        except (AddressValueError, UnicodeDecodeError):
            return Reply(flight.target, flight.sequence, now, own, fault="bad_reply")
        return Reply(flight.target, flight.sequence, now, own, told=told)


async def ask_once(target: Target, binding: Binding, timeout_s: float) -> Reply:
    """
    Return the answer of one TCP echo.

    Raises:
        ProbeFault: refused, closed, unreachable, timed_out, bad_reply; send_failed and binding_failed are our own.
    """
    loop = asyncio.get_running_loop()
    echo = TcpEcho(binding, timeout_s)
    readable = asyncio.Event()
    try:
        loop.add_reader(echo.fileno(), readable.set)
        echo.send(target, 0)
        deadline = loop.time() + timeout_s
        while not (replies := echo.drain()):
            left_s = deadline - loop.time()
            if left_s <= 0:
                raise ProbeFault("timed_out", str(target))
            readable.clear()
            handle = loop.call_later(left_s, readable.set)
            await readable.wait()
            handle.cancel()
    finally:
        loop.remove_reader(echo.fileno())
        echo.close()
    if replies[0].fault is not None:
        raise ProbeFault(replies[0].fault, str(target))
    return replies[0]
