"""
ICMP echo over one socket for each binding, with the kernel's receive time stamps. Protocol: RFC 792.

Raw where that is permitted (CAP_NET_RAW), else the kernel's ping socket (net.ipv4.ping_group_range). Only an echo reply
with our identifier and token, from the address that was asked, with an awaited sequence count, is an answer; ICMP's
"unreachable" is none.
"""

from __future__ import annotations

import ctypes
import errno
import secrets
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from agent.clock import boot_s, wall_ns
from agent.errors import ProbeFault
from probes.wire.echo import Binding, Reply, Target, bind, check_bound, send_fault

ECHO_REQUEST: Final = 8
ECHO_REPLY: Final = 0
HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
IP_HEADER_BYTES: Final = 20
TOKEN_BYTES: Final = 8
PAYLOAD_BYTES_MAX: Final = 1472  # what fits an Ethernet frame
AWAITED_MAX: Final = 4096  # far below the 65536 sequence numbers, so that a number is free again when it comes round
DATAGRAM_BYTES: Final = 2048

SO_TIMESTAMPNS: Final = 35
SO_ATTACH_FILTER: Final = 26
IP_PKTINFO: Final = 8
TIMESPEC: Final = struct.Struct("@ll")
PKTINFO: Final = struct.Struct("@i4s4s")  # interface index, our address, the header's destination
CONTROL_BYTES: Final = socket.CMSG_SPACE(TIMESPEC.size) + socket.CMSG_SPACE(PKTINFO.size)
# Reading them clears them: they tell of an earlier send, and a send that brought nothing back is a loss anyway.
PASSING_ERRORS: Final = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ECONNREFUSED}
)


class EchoSocket:
    """
    One ICMP echo socket. It never waits: `send`, and `drain` when it is readable or before anything is counted as lost.

    Raises (on making it):
        ProbeFault: binding_failed (interface or address are not there), failed (neither kind of socket is permitted).
    """

    def __init__(self, binding: Binding, payload_bytes: int = 16) -> None:
        if not TOKEN_BYTES <= payload_bytes <= PAYLOAD_BYTES_MAX:
            raise ValueError(f"payload_bytes: must be within {TOKEN_BYTES} and {PAYLOAD_BYTES_MAX}")
        self.binding = binding
        self._identifier = secrets.randbelow(0x10000)
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._payload = self._token + bytes(payload_bytes - TOKEN_BYTES)
        self._awaited: OrderedDict[tuple[str, int], tuple[Target, int]] = OrderedDict()
        self._drained_at = boot_s()
        self._socket, self.is_raw = _open()
        try:
            bind(self._socket, binding)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            if self.is_raw:
                _attach_filter(self._socket, self._identifier)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def send(self, target: Target, sequence: int) -> None:
        """Ask *target* under *sequence*. Raises ProbeFault: send_failed, binding_failed."""
        number = sequence & 0xFFFF
        self._awaited[target.address, number] = (target, sequence)
        if len(self._awaited) > AWAITED_MAX:
            self._awaited.popitem(last=False)
        try:
            self._socket.sendto(echo_request(self._identifier, number, self._payload), (target.address, 0))
        except OSError as error:
            self._awaited.pop((target.address, number), None)
            raise send_fault(error, target) from error

    def drain(self) -> list[Reply]:
        """Return every answer that waits, with the moment at which the kernel had it."""
        replies = []
        while (received := self._receive()) is not None:
            data, ancillary, sender = received
            payload, destination = split_datagram(data, self.is_raw)
            number = reply_number(payload, self._identifier if self.is_raw else None, self._token)
            asked = self._awaited.pop((sender, number), None) if number is not None else None
            if asked is not None:
                received_at, index, address = self._read_ancillary(ancillary)
                replies.append(Reply(asked[0], asked[1], received_at, destination or address, index))
        self._drained_at = boot_s()
        return replies

    def check(self) -> None:
        """Read the binding back. Raises ProbeFault: binding_failed."""
        check_bound(self._socket, self.binding)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], str] | None:
        while True:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(DATAGRAM_BYTES, CONTROL_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno not in PASSING_ERRORS:
                    raise ProbeFault("failed", f"reading echo replies: {error.strerror}") from error
            else:
                return data, ancillary, sender[0]

    def _read_ancillary(self, ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[float, int, str | None]:
        """Return boot seconds of arrival, interface index and our address."""
        now = boot_s()
        received_at, index, address = now, 0, None
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) == TIMESPEC.size:
                seconds, nanoseconds = TIMESPEC.unpack(data)
                received_at = now - (wall_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e9
            elif (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(data) == PKTINFO.size:
                index, _, destination = PKTINFO.unpack(data)
                address = socket.inet_ntoa(destination)
        # It came after the socket was last found empty. That also bounds the error when UTC is stepped in between.
        return min(max(received_at, self._drained_at), now), index, address


def echo_request(identifier: int, number: int, payload: bytes) -> bytes:
    """Return an echo request with its checksum."""
    unsigned = HEADER.pack(ECHO_REQUEST, 0, 0, identifier, number) + payload
    return HEADER.pack(ECHO_REQUEST, 0, checksum(unsigned), identifier, number) + payload


def checksum(data: bytes) -> int:
    """Return the Internet checksum of *data*. Source: RFC 1071."""
    padded = data + b"\0" if len(data) % 2 else data
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def split_datagram(data: bytes, is_raw: bool) -> tuple[bytes, str | None]:
    """Return the ICMP part of *data* and the IP header's destination, which only a raw socket shows."""
    if not is_raw:
        return data, None
    if len(data) < IP_HEADER_BYTES:
        return b"", None
    return data[(data[0] & 0x0F) * 4 :], socket.inet_ntoa(data[16:20])


def reply_number(data: bytes, identifier: int | None, token: bytes) -> int | None:
    """
    Return the sequence number of the ICMP message *data* when it is a whole echo reply to us, else None.

    *identifier* None: the kernel has chosen and checked it (ping socket).
    """
    if len(data) < HEADER.size + len(token):
        return None
    header: tuple[int, int, int, int, int] = HEADER.unpack_from(data)
    kind, code, _, seen, number = header
    is_ours = kind == ECHO_REPLY and code == 0 and identifier in (None, seen) and data[HEADER.size :].startswith(token)
    return number if is_ours else None


def _open() -> tuple[socket.socket, bool]:
    """Return a socket, and whether it is raw."""
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), True
    except PermissionError:
        pass  # the ping socket below needs no privilege where the host allows it
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), False
    except PermissionError as error:
        cure = "give the service CAP_NET_RAW, or widen net.ipv4.ping_group_range"
        raise ProbeFault("failed", f"ICMP echo is not permitted: {cure}") from error


def _attach_filter(endpoint: socket.socket, identifier: int) -> None:
    """Let the kernel drop all but echo replies with *identifier*: a raw socket else gets all ICMP of the host."""
    program = (
        (0xB1, 0, 0, 0),  # X = length of the IP header
        (0x50, 0, 0, 0),  # A = type
        (0x15, 0, 3, ECHO_REPLY),
        (0x48, 0, 0, 4),  # A = identifier
        (0x15, 0, 1, identifier),
        (0x06, 0, 0, 0xFFFFFFFF),  # take it
        (0x06, 0, 0, 0),  # drop it
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *row) for row in program))
    endpoint.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HL", len(program), ctypes.addressof(code)))
    while True:  # what came in before the filter stood
        try:
            endpoint.recv(DATAGRAM_BYTES)
        except BlockingIOError:
            return
