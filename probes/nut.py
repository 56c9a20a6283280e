"""Read a UPS through a NUT server: its status words each second, its measured values each ten. Protocol: RFC 9271."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.core.model import PointSpec, Value
from agent.errors import ProbeFault
from agent.ports import Lane, ProbeContext, ProbeKind, Suspect
from probes.wire.nut import NutClient, quoted, shown


@dataclass(frozen=True, slots=True)
class NutConfig:
    """
    The site file's keys for a UPS behind a NUT server.

    Raises:
        ValueError: a name missing or with control characters, an impossible port, a time that is not above zero.
    """

    ups: str
    host: str = "127.0.0.1"
    port: int = 3493
    status_period_s: float = 1.0
    variables_period_s: float = 10.0
    connect_timeout_s: float = 2.0
    reply_timeout_s: float = 3.0

    def __post_init__(self) -> None:
        if not self.ups.strip():
            raise ValueError("ups: the device's name in the server's ups.conf is missing")
        quoted(self.ups)
        if not self.host.strip():
            raise ValueError("host: the server's address is missing")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port: must be within 1 and 65535, got {self.port}")
        for name in ("status_period_s", "variables_period_s", "connect_timeout_s", "reply_timeout_s"):
            if not 0 < getattr(self, name) <= SECONDS_MAX:
                raise ValueError(f"{name}: must be above 0 and at most {SECONDS_MAX}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Variable:
    """One measured value: our point, its unit, what NUT's number is multiplied by, and the range that is possible."""

    point: str
    unit: str
    least: float
    most: float
    text: str
    deadband: float
    factor: float = 1.0

    def read(self, name: str, text: str) -> Reading:
        """Return the number in *text*, or a Suspect without value: a doubtful number is never passed on as one."""
        if not NUMBER.fullmatch(text):
            return Suspect(None, f"{name} is no plain number: {shown(text, 40)}")
        if not self.least <= float(text) <= self.most:
            return Suspect(None, f"{name} is outside {self.least:g} to {self.most:g}: {shown(text, 40)}")
        return float(text) * self.factor


Reading = Value | Suspect

SECONDS_MAX: Final = 3600
NO_FIRST_ANSWER: Final = "the server has no first answer of its driver yet"
NUMBER: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
WEEK_S: Final = 7 * 86400  # no UPS lasts longer: larger runtimes are sentinels

VARIABLES: Final = {  # NUT variable -> (our point, unit, range possible in NUT's own unit, ...)
    "battery.charge": Variable("battery_charge_ratio", "ratio", 0, 100, "battery's charge, 1 is full", 0.01, 0.01),
    "battery.runtime": Variable("battery_runtime_s", "s", 0, WEEK_S, "time left on battery at the present load", 15),
    "battery.temperature": Variable("battery_temperature_celsius", "celsius", -40, 120, "battery's temperature", 0.5),
    "battery.voltage": Variable("battery_voltage_volt", "volt", 0, 1000, "battery's voltage", 0.1),
    "input.frequency": Variable("input_frequency_hertz", "hertz", 0, 100, "frequency at the input", 0.1),
    "input.voltage": Variable("input_voltage_volt", "volt", 0, 1000, "voltage at the input", 1),
    "ups.load": Variable("load_ratio", "ratio", 0, 200, "load, 1 is what the UPS is rated for", 0.01, 0.01),
}

INPUT: Final = {"mains_present": "mains is present at the input", "on_battery": "the load is fed from the battery"}
FLAGS: Final = {  # our point -> (the words of ups.status that make it true, text)
    "battery_low": (("LB",), "the battery is nearly empty, or too weak"),
    "replace_battery": (("RB",), "the UPS asks for a new battery"),
    "overloaded": (("OVER",), "the load is more than the UPS is rated for"),
    "bypass": (("BYPASS",), "the load is fed past the inverter: no battery protects it"),
    "calibrating": (("CAL", "TEST"), "the UPS discharges its battery on purpose"),
    "output_off": (("OFF",), "the UPS does not feed its load"),
    "forced_shutdown": (("FSD",), "the NUT server is shutting its hosts down; latched until it is restarted"),
    "alarm": (("ALARM",), "the UPS has an alarm of its own"),
}
TOLD_OTHERWISE: Final = frozenset({"OFF", "FSD", "BYPASS"})  # a UPS in such a state need not speak of its input


class NutProbe:
    """
    A UPS behind a NUT server.

    Each lane has a connection of its own: the server answers one connection's questions in their order, so that on a
    common one a long list, or a list that trickles in, would make the status late just when it matters.
    """

    def __init__(self, equipment: str, config: NutConfig) -> None:
        self.equipment = equipment
        self.channel = channel(equipment, config)
        self.specs: Mapping[str, PointSpec] = specs(config)
        deadline_s = config.connect_timeout_s + config.reply_timeout_s
        variables = tuple(variable.point for variable in VARIABLES.values())
        status = tuple(point for point in self.specs if point not in variables)
        self.lanes: tuple[Lane, ...] = (
            Lane("status", config.status_period_s, deadline_s, status),
            Lane("variables", config.variables_period_s, deadline_s, variables),
        )
        self._ups = config.ups
        self._clients = {lane.name: _client(config) for lane in self.lanes}

    async def poll(self, lane: str) -> Mapping[str, Any]:
        """Return the readings of *lane*; a value that the UPS does not report is left out. Raises ProbeFault."""
        if lane == "status":
            return read_status(await self._clients[lane].get_var(self._ups, "ups.status"))
        return read_variables(await self._clients[lane].list_vars(self._ups))

    async def close(self) -> None:
        """Let go of both connections."""
        for client in self._clients.values():
            await client.close()


def read_status(text: str) -> dict[str, Reading]:
    """
    Return the points that *text*, the value of `ups.status`, speaks of. Unknown words are ignored, as NUT demands.

    Raises:
        ProbeFault: wait (the server has nothing from its driver yet), bad_reply (no word at all).
    """
    words = frozenset(text.split())
    if "WAIT" in words:
        raise ProbeFault("wait", NO_FIRST_ANSWER)
    if not words:
        raise ProbeFault("bad_reply", "ups.status is empty")
    flags = {point: not words.isdisjoint(causes) for point, (causes, _) in FLAGS.items()}
    return {**_read_input(words), **flags, "status": shown(" ".join(text.split()))}


def _read_input(words: frozenset[str]) -> dict[str, Reading]:
    online, on_battery = "OL" in words, "OB" in words
    mains: Reading = online
    battery: Reading = on_battery
    if online and on_battery:
        mains = battery = Suspect(None, "OL and OB at once")
    elif on_battery and not words.isdisjoint(FLAGS["calibrating"][0]):
        mains, battery = Suspect(False, "self-test or calibration"), Suspect(True, "self-test or calibration")
    elif not online and not on_battery:
        if not words.isdisjoint(TOLD_OTHERWISE):
            return {}
        mains = battery = Suspect(None, "neither OL nor OB")
    return {"mains_present": mains, "on_battery": battery}


def read_variables(variables: Mapping[str, str]) -> dict[str, Reading]:
    """Return the points of the measured values among *variables*. Raises ProbeFault: wait."""
    if "WAIT" in variables.get("ups.status", "").split():
        raise ProbeFault("wait", NO_FIRST_ANSWER)
    told = [name for name in VARIABLES if name in variables]
    return {VARIABLES[name].point: VARIABLES[name].read(name, variables[name]) for name in told}


def specs(config: NutConfig) -> dict[str, PointSpec]:
    """Return what each point of a UPS is, by its name."""
    flags = INPUT | {point: text for point, (_, text) in FLAGS.items()}
    return {
        **{point: PointSpec("bool", config.status_period_s, text) for point, text in flags.items()},
        "status": PointSpec("state", config.status_period_s, "the words of ups.status as the server gave them"),
        **{
            variable.point: PointSpec(variable.unit, config.variables_period_s, variable.text, variable.deadband)
            for variable in VARIABLES.values()
        },
    }


def channel(equipment: str, config: NutConfig) -> str:
    """Return the way by which the facts of *equipment* come: the server, which may serve several devices."""
    return f"nut:{config.host}:{config.port}"


def make(equipment: str, config: NutConfig, context: ProbeContext) -> NutProbe:
    """Return the probe of *equipment*; nothing is connected before its first poll."""
    return NutProbe(equipment, config)


def _client(config: NutConfig) -> NutClient:
    return NutClient(config.host, config.port, config.connect_timeout_s, config.reply_timeout_s)


KIND: Final = ProbeKind("nut", ("ups",), NutConfig, make, specs, channel)
