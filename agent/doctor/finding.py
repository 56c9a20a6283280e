"""What a check of the doctor is given and what it says."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final

import psutil

from agent.app import Surroundings
from agent.config import Config
from agent.core.model import Mode
from agent.core.runbook import Runbook
from runbooks import ACTIONS
from runbooks.command import find_program

ROUTES: Final = "kernel-routes"  # the channel of the verbs that move routes
HOLDER_BYTES_MAX: Final = 200
SOCKET_WITHIN_S: Final = 1.0


class Verdict(StrEnum):
    """How it stands: `wrong` keeps the agent from seeing or doing something, `note` does not."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: `about` what, `what` was found, and the cure in plain words ("" where none is needed)."""

    verdict: Verdict
    about: str
    what: str
    cure: str = ""

    def line(self) -> str:
        """Return it as one line of text."""
        return f"{self.verdict:<5}  {self.about}: {self.what}" + (f"; {self.cure}" if self.cure else "")

    def data(self) -> dict[str, str]:
        """Return it for JSON."""
        return {"verdict": str(self.verdict), "about": self.about, "what": self.what, "cure": self.cure}


def ok(about: str, what: str) -> Finding:
    """Return that *about* is as it should be."""
    return Finding(Verdict.OK, about, what)


def note(about: str, what: str, cure: str = "") -> Finding:
    """Return something that is good to know of *about*."""
    return Finding(Verdict.NOTE, about, what, cure)


def wrong(about: str, what: str, cure: str) -> Finding:
    """Return what is wrong with *about*, and the cure."""
    return Finding(Verdict.WRONG, about, what, cure)


Addresses = Mapping[str, tuple[IPv4Interface, ...]]


def own_addresses() -> Addresses:
    """Return each interface with its IPv4 addresses; the far end of a point-to-point link counts as its network."""
    found: dict[str, tuple[IPv4Interface, ...]] = {}
    for name, entries in psutil.net_if_addrs().items():
        ipv4 = [entry for entry in entries if entry.family.name == "AF_INET"]
        own = [IPv4Interface(f"{entry.address}/{entry.netmask or 32}") for entry in ipv4]
        far = [IPv4Interface(f"{entry.ptp}/32") for entry in ipv4 if entry.ptp]
        found[name] = (*own, *far)
    return found


def free_bytes(place: Path) -> int:
    """Return what a user may still write on the file system at *place*. Raises OSError."""
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the doctor asks this machine itself; a test puts its own in its place."""

    proc: Path = Path("/proc")
    addresses: Callable[[], Addresses] = own_addresses
    program: Callable[[str], str | None] = find_program
    free_bytes: Callable[[Path], int] = free_bytes

    def setting(self, name: str) -> str | None:
        """Return the kernel's setting *name*, as in net/ipv4/ip_forward, None where there is none."""
        try:
            return (self.proc / "sys" / name).read_text(encoding="ascii").strip()
        except OSError:
            return None

    def has_capability(self, bit: int) -> bool:
        """Tell whether this process has the capability of this number in effect."""
        try:
            rows = (self.proc / "self" / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        mask = next((row.split()[1] for row in rows if row.startswith("CapEff:")), "0")
        return bool(int(mask, 16) >> bit & 1)


@dataclass(frozen=True, slots=True)
class Patient:
    """The site and the machine that are looked at. `holder`: the agent that is at work there, None while none is."""

    config: Config
    around: Surroundings
    kernel: Kernel = field(default_factory=Kernel)
    holder: str | None = None

    def movers(self) -> list[Runbook]:
        """Return the runbooks that move routes, without those that are off and the ways home."""
        return [
            book
            for book in self.config.site.runbooks.values()
            if book.mode is not Mode.OFF
            and not book.is_return
            and any(ACTIONS[step.verb].channel == ROUTES for step in book.steps)
        ]


def running_agent(config: Config) -> str | None:
    """Return who is at work at this site on this machine, None when nobody is seen."""
    return holder_of(config.state_dir) or answering(config.server.socket)


def answering(path: Path) -> str | None:
    """Return that an agent answers at this socket, None when none does, or when this user may not ask."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(SOCKET_WITHIN_S)
        try:
            trial.connect(str(path))
        except OSError:
            return None
    return f"an agent answers at {path}"


def holder_of(state_dir: Path) -> str | None:
    """Return who owns the state directory, None when nobody does or when it cannot be looked into."""
    try:
        descriptor = os.open(state_dir / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared, and let go at once: nothing else tells whether the lock is held. It is ours for some microseconds.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        told = os.pread(descriptor, HOLDER_BYTES_MAX, 0).decode(errors="replace").strip()
        return told if told.isprintable() and told else "an unknown process"
    finally:
        os.close(descriptor)
    return None
