"""What this machine shows of its branch: name and zone, devices of its NUT server, default routes, disks."""

from __future__ import annotations

import asyncio
import socket
import zoneinfo
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from agent.errors import ChangeoverError
from agent.ports import Route
from probes.wire.nut_devices import Device, devices
from runbooks.routes import IpRouteTable

NUT_HOST: Final = "127.0.0.1"
NUT_PORT: Final = 3493
NUT_WITHIN_S: Final = 3.0
# Mounted by the boot loader or read-only by nature: always full, or of no matter to a running agent.
UNWATCHED: Final = frozenset({"vfat", "msdos", "iso9660", "udf", "squashfs"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen. `unseen`: source (timezone, devices, routes, disks) -> why it could not be looked at."""

    hostname: str = ""
    timezone: str | None = None
    devices: tuple[Device, ...] = ()
    routes: tuple[Route, ...] = ()
    disks: tuple[str, ...] = ("/",)
    unseen: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "hostname": self.hostname,
            "timezone": self.timezone,
            "ups": [{"name": one.name, "text": one.text} for one in self.devices],
            "default_routes": [
                {"interface": one.interface, "gateway": one.gateway or None, "metric": one.metric}
                for one in self.routes
            ],
            "disks": list(self.disks),
            "not_seen": dict(self.unseen),
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """The doors to this machine. Each may raise a ChangeoverError or an OSError, which then becomes a fact."""

    hostname: Callable[[], str]
    timezone: Callable[[], str]
    devices: Callable[[], Awaitable[tuple[Device, ...]]]
    routes: Callable[[], Awaitable[tuple[Route, ...]]]  # for "default", best metric first
    disks: Callable[[], tuple[str, ...]]


def this_machine() -> Machine:
    """Return the doors to the machine that this runs on."""
    return Machine(
        hostname=socket.gethostname,
        timezone=lambda: zone_name(Path("/etc")),
        devices=lambda: devices(NUT_HOST, NUT_PORT, NUT_WITHIN_S),
        routes=lambda: IpRouteTable().routes("default"),
        disks=lambda: local_disks(psutil.disk_partitions(all=False)),
    )


async def survey(machine: Machine) -> Survey:
    """Look at each source once, all at the same time; one that fails hides no other."""
    unseen: dict[str, str] = {}

    async def look(source: str, door: Callable[[], Awaitable[T]], otherwise: T) -> T:
        try:
            return await door()
        except (ChangeoverError, OSError) as error:
            unseen[source] = str(error)
            return otherwise

    async def now(door: Callable[[], T]) -> T:
        return door()

    no_devices: tuple[Device, ...] = ()
    no_routes: tuple[Route, ...] = ()
    found, routes = await asyncio.gather(
        look("devices", machine.devices, no_devices),
        look("routes", machine.routes, no_routes),
    )
    return Survey(
        hostname=await look("hostname", lambda: now(machine.hostname), ""),
        timezone=await look("timezone", lambda: now(machine.timezone), "") or None,
        devices=found,
        routes=routes,
        disks=await look("disks", lambda: now(machine.disks), ("/",)),
        unseen=unseen,
    )


def zone_name(etc: Path) -> str:
    """Return the name of this machine's time zone, as its localtime or timezone under *etc* says. Raises OSError."""
    _, is_link, linked = str((etc / "localtime").resolve()).rpartition("/zoneinfo/")
    try:
        written = (etc / "timezone").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        written = ""
    known = zoneinfo.available_timezones()
    for word in (linked if is_link else "", written):
        if word in known:
            return word
    raise OSError(f"neither {etc}/localtime nor {etc}/timezone names a time zone")


def local_disks(partitions: Iterable[Any]) -> tuple[str, ...]:
    """
    Return where each local file system is mounted, / first, one place for each device.

    *partitions*: as psutil's `disk_partitions(all=False)` gives them, which leaves out network shares.
    """
    place_of: dict[str, str] = {}
    for one in sorted(partitions, key=lambda one: (len(one.mountpoint), one.mountpoint)):
        is_plain = one.mountpoint.isprintable() and Path(one.mountpoint).is_dir()
        if is_plain and one.fstype not in UNWATCHED and "ro" not in one.opts.split(","):
            place_of.setdefault(one.device, one.mountpoint)
    return ("/", *sorted(set(place_of.values()) - {"/"}))
