"""
Tells systemd how the agent stands: ready, alive, reloading, stopping, and one line for people. Protocol: sd_notify(3).

The watchdog is fed only when the loop has completed a pass since the last time. A loop that is stuck, or a process that
is stopped or starved, falls silent, and systemd starts the agent anew. Trouble with the disk or the network is none of
its business: the agent goes on watching through both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol

from agent.clock import running_s

BEATS_PER_WATCHDOG: Final = 3  # two beats may be lost before systemd's patience ends
BEAT_S_MAX: Final = 5.0  # how old the line for people may be
FIRST_LOOK_S: Final = 0.05  # how soon the first completed pass is noticed
STATUS_CHARS_MAX: Final = 200

log = logging.getLogger(__name__)


class Passing(Protocol):
    """A loop that counts its completed passes."""

    @property
    def passes(self) -> int: ...


class Notifier:
    """
    The agent's word to systemd. Without systemd (no NOTIFY_SOCKET) every word is a no-op.

    *status* is asked for the line for people at every beat; it is sent when it has changed.
    """

    def __init__(self, loop: Passing, status: Callable[[], str], environment: Mapping[str, str] = os.environ) -> None:
        self.beat_s = min(BEAT_S_MAX, watchdog_s(environment) / BEATS_PER_WATCHDOG)
        self._loop = loop
        self._status = status
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._passes_told = 0
        self._status_told = ""
        self._is_ready = False
        self._may_be_ready: Callable[[], bool] = lambda: True
        self._is_troubled = False

    async def run(self) -> None:
        """Say that the agent is ready after its first pass, then beat until cancelled."""
        if not self._address:
            return
        while True:
            self.beat()
            await asyncio.sleep(self.beat_s if self._is_ready else min(FIRST_LOOK_S, self.beat_s))

    def beat(self) -> None:
        """Say what is new: the first pass, another pass, another status. Without a new pass, nothing."""
        passes = self._loop.passes
        if passes == self._passes_told:
            return
        words = ["WATCHDOG=1"]
        is_ready = self._is_ready or self._may_be_ready()
        if is_ready and not self._is_ready:
            words.append("READY=1")
        status = one_line(self._status())
        if status != self._status_told:
            words.append(f"STATUS={status}")
        if self._say(*words):
            self._passes_told, self._status_told, self._is_ready = passes, status, is_ready

    def reloading(self, until: Callable[[], bool] = lambda: True) -> None:
        """
        Say that the site file is being read anew; the next completed pass for which *until* holds says that the agent is
        ready again.
        """
        self._is_ready = False
        self._may_be_ready = until
        self._passes_told = self._loop.passes
        self._say("RELOADING=1", f"MONOTONIC_USEC={int(running_s() * 1_000_000)}")

    def stopping(self) -> None:
        """Say that the agent is ending on purpose."""
        self._say("STOPPING=1", "STATUS=stopping")

    def _say(self, *words: str) -> bool:
        """Send *words*; tell whether they left. A manager that cannot be told is no reason to stop watching."""
        if not self._address:
            return False
        try:
            send(self._address, words)
        except OSError as error:
            if not self._is_troubled:
                log.warning("systemd.not_told words=%s error=%s", " ".join(words), error)
            self._is_troubled = True
            return False
        self._is_troubled = False
        return True


@contextlib.asynccontextmanager
async def told_to_systemd(
    loop: Passing, status: Callable[[], str], environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Notifier]:
    """Keep systemd informed for as long as the context lasts. Enter it when the agent's doors are open."""
    notifier = Notifier(loop, status, environment)
    task = asyncio.create_task(notifier.run(), name="systemd")
    try:
        yield notifier
    finally:
        notifier.stopping()
        task.cancel()
        for ended in await asyncio.gather(task, return_exceptions=True):
            if isinstance(ended, Exception):
                log.error("systemd.failed", exc_info=ended)


def send(address: str, words: tuple[str, ...]) -> None:
    """Send one datagram without waiting; an *address* that begins with @ is an abstract one. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as endpoint:
        endpoint.connect("\0" + address[1:] if address.startswith("@") else address)
        endpoint.sendall("\n".join(words).encode())


def watchdog_s(environment: Mapping[str, str]) -> float:
    """Return systemd's patience in seconds, infinite when it has no watchdog on this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return float("inf")
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() and int(microseconds) else float("inf")


def one_line(text: str) -> str:
    """Return *text* on one line, for a line break would begin another word to systemd."""
    return " ".join(text.split())[:STATUS_CHARS_MAX]
