"""What the agent needs of its own host: permission for echoes, a directory, a socket, a port, disk space, a sane clock."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.control import PATH_BYTES_MAX
from agent.doctor.finding import Finding, Patient, note, ok, wrong
from agent.errors import ProbeFault
from probes.wire.echo import Binding, parse_target
from probes.wire.icmp import EchoSocket

FREE_BYTES_MIN: Final = 512 * 1024 * 1024
MEBIBYTE: Final = 1024 * 1024
YEARS: Final = (2025, 2099)
BEHIND_S_MAX: Final = 3600.0  # a file may have been written on a machine whose clock is a little ahead
ECHO_CURE: Final = (
    "give the service CAP_NET_RAW, or let its group make ping sockets: "
    "sysctl -w net.ipv4.ping_group_range='0 2147483647'"
)
OWNER_CURE: Final = "try the doctor as root; else give the agent's own user the directory (chown), or mend {key}"


async def check_running(patient: Patient) -> list[Finding]:
    """Return whether an agent is at work here."""
    if patient.holder is None:
        return [ok("agent", "none is running here")]
    return [note("agent", f"one is running ({patient.holder}): it was left alone, and its files were only looked at")]


async def check_echo(patient: Patient) -> list[Finding]:
    """Return whether echoes may be sent, where the site asks any target by one."""
    targets = [target for line in patient.config.lines.values() for target in line.parsed().values()]
    targets += [parse_target(own.target) for kind, own in patient.config.probe_configs.values() if kind == "path"]
    if all(target.port is not None for target in targets):
        return []
    try:
        echo = EchoSocket(Binding())
    except ProbeFault:
        return [wrong("echo", "ICMP echo is not permitted to this user", ECHO_CURE)]
    echo.close()
    return [ok("echo", "by raw socket" if echo.is_raw else "by ping socket (net.ipv4.ping_group_range)")]


async def check_state_dir(patient: Patient) -> list[Finding]:
    """Return whether the state directory can be written. A file without a name is tried; nothing stays."""
    path = patient.config.state_dir
    place = nearest(path)
    cure = OWNER_CURE.format(key="server.state_dir")
    if not place.is_dir():
        return [wrong("state directory", f"{place} is no directory", "mend server.state_dir")]
    try:
        if patient.holder is None:
            with tempfile.TemporaryFile(dir=place) as trial:
                trial.write(b"x")
                trial.flush()
        elif not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        return [wrong("state directory", f"{place} cannot be written: {error.strerror or error}", cure)]
    if strangers := of_another_owner(place) if place == path else ():
        told = f"{', '.join(strangers)} there belong to another user than {path} itself"
        return [wrong("state directory", told, f"chown -R --reference={path} {path}")]
    made = "" if place == path else f", where {path} will be made"
    return [ok("state directory", f"{place} can be written{made}")]


def of_another_owner(directory: Path) -> list[str]:
    """Return the files in *directory* that an agent under another user, often root, has left there."""
    owner = directory.stat().st_uid
    return sorted(path.name for path in directory.iterdir() if path.lstat().st_uid != owner)


async def check_socket(patient: Patient) -> list[Finding]:
    """Return whether the control socket can be made."""
    path = patient.config.server.socket
    place, length = nearest(path.parent), len(os.fsencode(path))
    if length > PATH_BYTES_MAX:
        shorter = f"write a shorter path under server.socket, at most {PATH_BYTES_MAX} bytes"
        return [wrong("socket", f"{path} has {length} bytes", shorter)]
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        return [wrong("socket", f"{path} is something else than a socket", "remove it, or mend server.socket")]
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        cure = OWNER_CURE.format(key="server.socket")
        return [wrong("socket", f"{place} cannot be written by this user", cure)]
    return [ok("socket", f"{path} can be made")]


async def check_metrics(patient: Patient) -> list[Finding]:
    """Return whether the port of the metrics is free; a running agent has it itself."""
    host, port = patient.config.server.metrics_host, patient.config.server.metrics_port
    if patient.holder is not None or not port:
        return []
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            cure = f'end what holds it (ss -ltnp "sport = :{port}"), or write another under server.metrics'
            return [wrong("metrics", f"{host}:{port} cannot be had: {error.strerror}", cure)]
    return [ok("metrics", f"{host}:{port} is free")]


async def check_disk(patient: Patient) -> list[Finding]:
    """Return whether the journal has room."""
    place = nearest(patient.config.state_dir)
    free = patient.kernel.free_bytes(place)
    told = f"{free // MEBIBYTE} MiB free at {place}"
    if free < FREE_BYTES_MIN:
        cure = f"make room: {FREE_BYTES_MIN // MEBIBYTE} MiB, for journal, points and reserve"
        return [wrong("disk", told, cure)]
    return [ok("disk", told)]


async def check_clock(patient: Patient) -> list[Finding]:
    """Return whether UTC may be right: a year of this time, and not before what was written already."""
    utc_s = patient.around.clock.now().utc_s
    shown = utc_text(utc_s)
    cure = "set the clock (timedatectl set-time), and let a time service keep it"
    if not YEARS[0] <= datetime.fromtimestamp(utc_s, UTC).year <= YEARS[1]:
        return [wrong("clock", f"it says {shown}", cure)]
    written = max(((path.stat().st_mtime, path) for path in dated_files(patient)), default=None)
    if written is not None and written[0] - utc_s > BEHIND_S_MAX:
        told = f"it says {shown}, and {written[1]} was written {utc_text(written[0])}"
        return [wrong("clock", told, cure)]
    return [ok("clock", f"it says {shown}")]


def dated_files(patient: Patient) -> Iterator[Path]:
    """Give files whose dates are not after the present."""
    yield from (path for path in (patient.config.source,) if path.is_file())
    try:
        yield from (path for path in patient.config.state_dir.iterdir() if path.is_file())
    except OSError:
        return  # not there yet, or not for this user's eyes


def utc_text(utc_s: float) -> str:
    """Return a moment of UTC as people read it."""
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def nearest(path: Path) -> Path:
    """Return *path*, or the nearest directory above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
