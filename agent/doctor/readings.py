"""How the answers of each kind of probe are read, as one table; a kind without a row is read as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.doctor import line, nut, path
from agent.doctor.asked import Asked, Reading
from agent.doctor.finding import Finding, ok, wrong
from agent.ports import Lane, Readings, Suspect


def read_local(asked: Asked, lane: Lane, readings: Readings) -> Finding:
    """Return what this host told of itself; a disk that cannot be looked at is a mistake in the site file."""
    fullest = readings.get("disk_ratio")
    if isinstance(fullest, Suspect):
        return wrong(asked.equipment, fullest.reason, "write under disks where a local file system is mounted")
    told = f", the fullest of its disks by {fullest:.0%}" if isinstance(fullest, float) else ""
    return ok(asked.equipment, f"is read{told}")


READINGS: Final[Mapping[str, Reading]] = {
    "nut": nut.READING,
    "line": line.READING,
    "path": path.READING,
    "local": Reading(lane=read_local),
}
