"""Ask a NUT server (`upsd`) which devices it has. Protocol: RFC 9271, LIST UPS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from agent.errors import ProbeFault
from probes.wire.nut import LINE_BYTES_MAX, SERVER_FAULTS, fault_of, shown, split

DEVICES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a NUT server: its name there, and what its ups.conf says of it."""

    name: str
    text: str = ""


async def devices(host: str, port: int, within_s: float) -> tuple[Device, ...]:
    """
    Return the devices of the server, in its order, after at most *within_s* seconds.

    Raises:
        ProbeFault: refused, timed_out, closed, unreachable, failed (the wire); access_denied (the server said so);
            bad_reply (anything else that it said).
    """
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(host, port, limit=LINE_BYTES_MAX)
            try:
                writer.write(b"LIST UPS\n")
                return await _read_list(reader)
            finally:
                writer.close()
    except TimeoutError as error:
        raise ProbeFault("timed_out", f"no whole answer within {within_s:g} s") from error
    except OSError as error:
        raise ProbeFault(fault_of(error), shown(str(error))) from error


async def _read_list(reader: asyncio.StreamReader) -> tuple[Device, ...]:
    found: list[Device] = []
    has_begun = False
    while len(found) <= DEVICES_MAX:
        match await _words(reader), has_begun:
            case ["BEGIN", "LIST", "UPS"], False:
                has_begun = True
            case ["UPS", name, text], True:
                found.append(Device(name, text))
            case ["END", "LIST", "UPS"], True:
                return tuple(found)
            case ["ERR", *said], _:
                raise ProbeFault(
                    SERVER_FAULTS.get(said[0] if said else "", "bad_reply"), shown(f"ERR {' '.join(said)}")
                )
            case words, _:
                raise ProbeFault("bad_reply", f"asked for the devices, got: {shown(' '.join(words))}")
    raise ProbeFault("bad_reply", f"a list of more than {DEVICES_MAX} devices")


async def _words(reader: asyncio.StreamReader) -> list[str]:
    try:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ProbeFault("closed", "the server ended the connection")
        return split(line.decode("utf-8", "replace").rstrip("\r\n"))
    except ValueError as error:  # too long a line, or bad quoting
        raise ProbeFault("bad_reply", shown(str(error))) from error
