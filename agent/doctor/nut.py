"""What the answers of a UPS behind a NUT server mean, and the cure where there are none."""

from __future__ import annotations

from typing import Final

from agent.doctor.asked import CURES, OTHERWISE, Asked, Reading, about, fault_text
from agent.doctor.finding import Finding, note, ok, wrong
from agent.errors import ProbeFault
from agent.ports import Lane, Readings, Suspect
from probes.wire.nut_devices import devices

LIST_WITHIN_S: Final = 3.0
NEEDED: Final = ("battery_charge_ratio", "battery_runtime_s", "load_ratio")  # the alarms on the battery rest on these
STATES: Final = {
    "on_battery": "it runs on its battery now",
    "bypass": "it is on bypass",
    "output_off": "its output is off",
}

NUT_CURES: Final = {
    "refused": "start it there (systemctl start nut-server; MODE= in /etc/nut/nut.conf must not be none), let it LISTEN "
    "on that address in /etc/nut/upsd.conf, or mend host and port",
    "access_denied": "let this host read there: LISTEN in /etc/nut/upsd.conf, and its firewall",
    "driver_not_connected": "start its driver (upsdrvctl start {ups}), and look at the cable",
    "data_stale": "its driver has gone quiet: look at the cable, then upsdrvctl stop {ups}; upsdrvctl start {ups}",
    "wait": "its driver has only just started: try again in a minute",
}


async def read_fault(asked: Asked, lane: Lane, fault: ProbeFault) -> Finding:
    """Return why the server said nothing of the UPS."""
    config = asked.config
    place = f"NUT server {config.host}:{config.port}"
    if fault.fault == "unknown_ups":
        return wrong(about(asked, lane), f"{place} has no device {config.ups}", await other_devices(asked))
    cure = NUT_CURES.get(fault.fault, CURES.get(fault.fault, OTHERWISE)).format(ups=config.ups)
    return wrong(about(asked, lane), f"{place}: {fault_text(fault.fault, fault.detail)}", cure)


async def other_devices(asked: Asked) -> str:
    """Return the cure for a device that the server does not have."""
    try:
        found = await devices(asked.config.host, asked.config.port, LIST_WITHIN_S)
    except ProbeFault:
        found = ()
    names = ", ".join(one.name for one in found)
    return f"write ups: as the server has it: {names}" if names else "name it in /etc/nut/ups.conf there"


def read_lane(asked: Asked, lane: Lane, readings: Readings) -> Finding:
    """Return what the UPS told."""
    doubts = [f"{point}: {value.reason}" for point, value in readings.items() if isinstance(value, Suspect)]
    if doubts:
        return note(
            about(asked, lane), f"answers, but {'; '.join(doubts)}", "see `upsc` on it; such values are not used"
        )
    if lane.name == "status":
        states = [text for point, text in STATES.items() if readings.get(point) is True]
        told = f"answers: {readings.get('status')}"
        return note(about(asked, lane), f"{told}: {', '.join(states)}") if states else ok(about(asked, lane), told)
    untold = [point for point in NEEDED if point not in readings]
    told = f"answers, {len(readings)} of {len(lane.points)} values"
    if untold:
        cure = "alarms on them stay silent: see whether its driver can tell them"
        return note(about(asked, lane), f"{told}, without {', '.join(untold)}", cure)
    return ok(about(asked, lane), told)


READING: Final = Reading(lane=read_lane, fault=read_fault)
