"""
The branch's own traffic: a UDP echo to headquarters each 10 ms, unbound, so that it goes the way the host routes it.

As a program: `python -m tests.peers.echo_traffic serve ADDRESS` answers with the source that it saw, and `... ask ADDRESS`
prints one line per echo: when it was sent, when it was answered ("-" for never), by which source address.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from agent.clock import boot_s
from tests.peers.netns import HQ, Lab

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[2]
PORT: Final = 7007
GAP_S: Final = 0.01
# What waited in the neighbour queue of a dead link is answered when the link is back: to an application it was lost.
LATE_S: Final = 1.0
SETTLED_S: Final = 5.0  # by then an echo is surely settled, even if the asker was starved meanwhile
LOOK_S: Final = 0.05
NUMBER: Final = struct.Struct("!Q")
PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Echo:
    """One echo: when it was sent and answered (boot seconds; None: lost), and the source that headquarters saw."""

    sent_at: float
    answered_at: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Outage:
    """From the first lost echo to the first one that was answered after the last: how long, and how many were lost."""

    length_s: float
    lost: int

    def __str__(self) -> str:
        return f"{self.length_s * 1000:.0f} ms, {self.lost} lost"


class Traffic:
    """The echoes of a lab's branch, under way when this is made, and until the lab is left."""

    def __init__(self, lab: Lab) -> None:
        program = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.peers.echo_traffic")
        server = lab.start("hq", *program, "serve", HQ)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n", "the echo server at headquarters did not start"
        self._process = lab.start("branch", *program, "ask", HQ)
        self._echoes: list[Echo] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._wait(lambda: any(echo.answered_at for echo in self._echoes), "an answered echo", PATIENCE_S)

    def wait_by(self, source: str, since: float, patience_s: float = PATIENCE_S) -> Echo:
        """Return the first echo sent after *since* that was answered and went by *source*; fail when none does."""
        return self._wait(
            lambda: next((e for e in self.since(since) if e.answered_at is not None and e.source == source), None),
            f"traffic by {source}",
            patience_s,
        )

    def since(self, at: float, until: float = float("inf")) -> list[Echo]:
        """Return the settled echoes sent from *at* to *until*, in the order in which they were sent."""
        found = []
        for echo in reversed(self._echoes):  # in the order in which they were settled, which is at most LATE_S off
            if echo.sent_at < at - SETTLED_S:
                break
            if at <= echo.sent_at <= until:
                found.append(echo)
        return sorted(found, key=lambda echo: echo.sent_at)

    def settled(self, since: float, until: float) -> list[Echo]:
        """Return the echoes sent between these instants, once the last of them is answered or lost."""
        self._wait(lambda: self.since(until + LATE_S), "echoes settle", LATE_S + PATIENCE_S)
        return self.since(since, until)

    def lost(self, since: float, until: float) -> int:
        """Return how many of the echoes sent between these instants were lost."""
        return sum(echo.answered_at is None for echo in self.settled(since, until))

    def outage(self, since: float, until: float) -> Outage:
        """Return the outage of the echoes sent between these instants; fail when none came back after the first loss."""
        echoes = self.settled(since, until)
        lost = [echo for echo in echoes if echo.answered_at is None]
        if not lost:
            return Outage(0.0, 0)
        back = [echo for echo in echoes if echo.answered_at is not None and echo.sent_at > lost[-1].sent_at]
        assert back, "nothing came back"
        return Outage(back[0].sent_at - lost[0].sent_at, len(lost))

    def _wait(self, look: Callable[[], T | None], what: str, patience_s: float) -> T:
        deadline = boot_s() + patience_s
        while not (found := look()):
            assert boot_s() < deadline, f"never seen: {what}; the last echoes were {self._echoes[-5:]}"
            assert self._process.poll() is None, "the traffic has ended"
            threading.Event().wait(LOOK_S)
        return found

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            sent_at, answered_at, source = line.split()
            self._echoes.append(Echo(float(sent_at), None if answered_at == "-" else float(answered_at), source))


def serve(address: str) -> None:
    """Answer each datagram with its number and the source that it came from, until killed."""
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind((address, PORT))
    print("ready", flush=True)
    while True:
        data, sender = endpoint.recvfrom(64)
        endpoint.sendto(data + socket.inet_aton(sender[0]), sender)


def ask(address: str) -> None:
    """Send an echo each 10 ms and print what became of it, until killed."""
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.setblocking(False)
    asked: dict[int, float] = {}
    number, due = 0, boot_s()
    while True:
        now = boot_s()
        if now >= due:
            number += 1
            asked[number] = now
            with contextlib.suppress(OSError):  # no way at all: nothing will answer, and that is what is to be seen
                endpoint.sendto(NUMBER.pack(number), (address, PORT))
            due = max(due + GAP_S, now)
        for old in [n for n, at in asked.items() if now - at > LATE_S]:
            tell(asked.pop(old), None, "-")
        readable, _, _ = select.select([endpoint], [], [], max(due - boot_s(), 0.0))
        if not readable:
            continue
        try:
            data = endpoint.recv(64)
        except OSError:
            continue  # "unreachable" is told of an earlier echo, which is lost anyway
        (answered,) = NUMBER.unpack_from(data)
        if answered in asked:
            tell(asked.pop(answered), boot_s(), socket.inet_ntoa(data[NUMBER.size :]))


def tell(sent_at: float, answered_at: float | None, source: str) -> None:
    """Print what became of one echo."""
    answered = "-" if answered_at is None else f"{answered_at:.6f}"
    print(f"{sent_at:.6f} {answered} {source}", flush=True)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](sys.argv[2])
