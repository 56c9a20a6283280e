"""
The alarms that come with each kind of equipment: shipped limits and delays, so that a ten-line site file is useful.

Figures: docs/alarms.md, which is checked against these tables. A site overrides single rungs under `alarms:`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from agent.core.alarm import AlarmSpec, Rung
from agent.core.judge import Condition, Op
from agent.core.model import AlarmKey, PointId, Tier, Value
from agent.core.profiles import Profile

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0
RUNTIME_DERATING: Final = 0.7  # an untested battery gives at most this share of what it promises
LEAVE_DELAY_S: Final = 3.0  # three good polls of the fast lane

LOWER_TIERS: Final = (Tier.YELLOW, Tier.ORANGE, Tier.RED)


class Ladder:
    """Collects the alarms of one piece of equipment."""

    def __init__(self, equipment: str) -> None:
        self.equipment = equipment
        self.alarms: list[AlarmSpec] = []

    def point(self, name: str) -> PointId:
        """Return the full id of this equipment's point *name*."""
        return PointId(f"{self.equipment}.{name}")

    def when(self, name: str, op: Op, value: Value = None) -> Condition:
        """Return one condition on this equipment's point *name*."""
        return Condition(self.point(name), op, value)

    def add(self, name: str, text: str, *rungs: Rung, acts: bool = False) -> None:
        """Add one alarm with its ladder, lowest tier first."""
        key = AlarmKey(f"{self.equipment}.{name}")
        self.alarms.append(AlarmSpec(key, self.equipment, name, rungs, text, acts))

    def flag(self, name: str, point: str, text: str, *steps: tuple[Tier, float], bad: Value = True) -> None:
        """Add an alarm on a yes/no point: one rung for each (tier, on-delay in seconds)."""
        enter, leave = (self.when(point, Op.IS, bad),), (self.when(point, Op.IS_NOT, bad),)
        self.add(name, text, *(Rung(tier, enter, leave, delay_s, LEAVE_DELAY_S) for tier, delay_s in steps))

    def above(
        self, name: str, point: str, text: str, *steps: tuple[Tier, float, float, float], margin: float = 0.05
    ) -> None:
        """Add an alarm on a value that is too high: (tier, limit, on-delay, off-delay); left *margin* (a share) below."""
        rungs = (
            Rung(
                tier,
                (self.when(point, Op.ABOVE, limit),),
                (self.when(point, Op.BELOW, limit - abs(limit) * margin),),
                on_s,
                off_s,
            )
            for tier, limit, on_s, off_s in steps
        )
        self.add(name, text, *rungs)

    def below(
        self,
        name: str,
        point: str,
        text: str,
        *steps: tuple[Tier, float, float],
        only_if: tuple[Condition, Condition] | None = None,
        margin: float = 0.05,
    ) -> None:
        """
        Add an alarm on a value that is too low: (tier, limit, on-delay); left *margin* (a share) above.

        *only_if*: (condition that must hold too, condition that ends the alarm by itself).
        """
        guard, release = ((only_if[0],), (only_if[1],)) if only_if is not None else ((), ())
        rungs = (
            Rung(
                tier,
                (*guard, self.when(point, Op.BELOW, limit)),
                (*release, self.when(point, Op.ABOVE, limit + abs(limit) * margin)),
                on_s,
                LEAVE_DELAY_S,
            )
            for tier, limit, on_s in steps
        )
        self.add(name, text, *rungs)

    def unreadable(self, point: str, *steps: tuple[Tier, float]) -> None:
        """Add the alarm that staying unknown is."""
        enter, leave = (self.when(point, Op.UNSEEN),), (self.when(point, Op.SEEN),)
        rungs = (Rung(tier, enter, leave, delay_s, LEAVE_DELAY_S) for tier, delay_s in steps)
        self.add("unreadable", f"{self.equipment} cannot be read", *rungs)


def ups_alarms(name: str, *, needed_s: float = 300.0, shutdown_s: float = 180.0) -> tuple[AlarmSpec, ...]:
    """
    Return the alarms of a UPS. *needed_s*: time that the way to another supply takes; *shutdown_s*: an orderly shutdown.
    """
    ladder = Ladder(name)
    on_battery = ladder.when("on_battery", Op.IS, True)
    on_mains = ladder.when("on_battery", Op.IS, False)
    low = ladder.when("battery_low", Op.IS, True)
    ladder.add(
        "mains_absent",
        f"{name} runs on its battery: the mains is absent at its input",
        Rung(Tier.YELLOW, (on_battery,), (on_mains,), 10.0, LEAVE_DELAY_S),
        Rung(Tier.ORANGE, (on_battery,), (on_mains,), 5 * MINUTE_S, LEAVE_DELAY_S),
        Rung(Tier.RED, (on_battery, low), (on_mains,), 0.0, LEAVE_DELAY_S),
    )
    ladder.add(
        "lost_on_battery",
        f"{name} was on battery when it fell silent",
        Rung(
            Tier.RED,
            (ladder.when("on_battery", Op.LAST_WAS, True), ladder.when("on_battery", Op.UNSEEN)),
            (ladder.when("on_battery", Op.SEEN),),
            15.0,
            0.0,
        ),
    )
    running_out = (on_battery, on_mains)
    ladder.below(
        "runtime_low",
        "battery_runtime_s",
        f"the battery of {name} will not last",
        (Tier.YELLOW, (needed_s + 20 * MINUTE_S) / RUNTIME_DERATING, 0.0),
        (Tier.ORANGE, (needed_s + 5 * MINUTE_S) / RUNTIME_DERATING, 0.0),
        (Tier.RED, (shutdown_s + 3 * MINUTE_S) / RUNTIME_DERATING, 0.0),
        only_if=running_out,
    )
    ladder.below(
        "charge_low",
        "battery_charge_ratio",
        f"the battery of {name} runs out",
        (Tier.YELLOW, 0.80, 0.0),
        (Tier.ORANGE, 0.50, 0.0),
        (Tier.RED, 0.30, 0.0),
        only_if=running_out,
    )
    ladder.below(
        "recharge_slow",
        "battery_charge_ratio",
        f"the battery of {name} is not full a day after the mains came back",
        (Tier.YELLOW, 0.95, DAY_S),
        (Tier.ORANGE, 0.80, DAY_S),
        only_if=(on_mains, on_battery),
        margin=0.02,
    )
    ladder.add(
        "battery_weak",
        f"the battery of {name} is low although the mains is present",
        Rung(
            Tier.ORANGE,
            (on_mains, low),
            (ladder.when("battery_low", Op.IS, False), on_battery),
            5.0,
            LEAVE_DELAY_S,
        ),
    )
    add_ups_health(ladder)
    add_ups_input(ladder)
    ladder.unreadable("on_battery", (Tier.YELLOW, MINUTE_S), (Tier.ORANGE, 5 * MINUTE_S))
    return tuple(ladder.alarms)


def add_ups_health(ladder: Ladder) -> None:
    """Add the alarms of the UPS itself."""
    name = ladder.equipment
    ladder.flag(
        "replace_battery",
        "replace_battery",
        f"{name} asks for a new battery",
        (Tier.YELLOW, 0.0),
        (Tier.ORANGE, 7 * DAY_S),
    )
    bypass, inverter = ladder.when("bypass", Op.IS, True), ladder.when("bypass", Op.IS, False)
    dead, fed = ladder.when("mains_present", Op.IS, False), ladder.when("mains_present", Op.IS, True)
    ladder.add(
        "bypass",
        f"{name} is on bypass: the battery protects nothing",
        Rung(Tier.ORANGE, (bypass,), (inverter,), 0.0, LEAVE_DELAY_S),
        Rung(Tier.RED, (bypass, dead), (inverter, fed), 0.0, LEAVE_DELAY_S),
    )
    ladder.flag("output_off", "output_off", f"{name} does not feed its load", (Tier.RED, 30.0))
    ladder.flag("forced_shutdown", "forced_shutdown", f"{name} is shutting down", (Tier.RED, 0.0))
    ladder.flag("device_alarm", "alarm", f"{name} reports an alarm of its own", (Tier.ORANGE, 0.0))
    ladder.flag("overloaded", "overloaded", f"{name} reports overload", (Tier.ORANGE, 0.0))
    ladder.flag("calibrating_long", "calibrating", f"{name} tests itself for over an hour", (Tier.YELLOW, 3600.0))
    ladder.above(
        "load_high",
        "load_ratio",
        f"the load on {name} is high",
        (Tier.YELLOW, 0.70, MINUTE_S, MINUTE_S),
        (Tier.ORANGE, 0.80, 5 * MINUTE_S, MINUTE_S),
        (Tier.RED, 1.00, 30.0, MINUTE_S),
    )
    ladder.above(
        "battery_hot",
        "battery_temperature_celsius",
        f"the battery of {name} is hot",
        (Tier.YELLOW, 30.0, MINUTE_S, MINUTE_S),
        (Tier.ORANGE, 40.0, MINUTE_S, MINUTE_S),
        (Tier.RED, 45.0, MINUTE_S, MINUTE_S),
    )
    # A self-test makes the flags contradict the mains for its planned length; that is no contradiction.
    idle = ladder.when("calibrating", Op.IS_NOT, True)
    ladder.add(
        "contradictory",
        f"{name} says that it is on mains and on battery at once",
        Rung(
            Tier.ORANGE,
            (ladder.when("mains_present", Op.SUSPECT), idle),
            (ladder.when("mains_present", Op.TRUSTED),),
            2.5,
            LEAVE_DELAY_S,
        ),
    )


def add_ups_input(ladder: Ladder) -> None:
    """Add the alarms of the mains as the UPS sees it (220 V, 50 Hz)."""
    name = ladder.equipment
    minute = MINUTE_S
    on_mains, on_battery = ladder.when("on_battery", Op.IS, False), ladder.when("on_battery", Op.IS, True)
    ladder.below(
        "input_voltage_low",
        "input_voltage_volt",
        f"the mains voltage at {name} is low",
        (Tier.YELLOW, 198.0, minute),
        (Tier.ORANGE, 187.0, 5 * minute),
        only_if=(on_mains, on_battery),
        margin=0.01,
    )
    ladder.above(
        "input_voltage_high",
        "input_voltage_volt",
        f"the mains voltage at {name} is high",
        (Tier.YELLOW, 242.0, minute, minute),
        (Tier.ORANGE, 253.0, 5 * minute, minute),
        margin=0.01,
    )
    ladder.below(
        "input_frequency_low",
        "input_frequency_hertz",
        f"the mains frequency at {name} is low",
        (Tier.YELLOW, 49.5, minute),
        (Tier.ORANGE, 49.0, minute),
        only_if=(on_mains, on_battery),
        margin=0.002,
    )
    ladder.above(
        "input_frequency_high",
        "input_frequency_hertz",
        f"the mains frequency at {name} is high",
        (Tier.YELLOW, 50.5, minute, minute),
        (Tier.ORANGE, 51.0, minute, minute),
        margin=0.002,
    )


def line_alarms(
    name: str,
    profile: Profile,
    rungs: tuple[str, ...],
    *,
    has_port: bool,
    has_service: bool,
    good_for_s: float | None = None,
) -> tuple[AlarmSpec, ...]:
    """
    Return the alarms of a line: for each rung dead, bad and degraded; the port; the service behind it.

    *good_for_s*: how long it must be good again, from the profile unless given.
    """
    ladder = Ladder(name)
    good_s = profile.good_for_s if good_for_s is None else good_for_s
    for rung in rungs:
        add_rung(ladder, profile, rung, good_s)
    if has_port:
        enter, leave = (ladder.when("carrier", Op.IS, False),), (ladder.when("carrier", Op.IS, True),)
        ladder.add(
            "port_down",
            f"the port of {name} has no carrier",
            Rung(Tier.ORANGE, enter, leave, profile.carrier_delay_s, good_s),
            acts=True,
        )
    if has_service:
        ladder.flag(
            "service_closed",
            "hq_service.open",
            f"headquarters' service does not answer over {name}",
            (Tier.YELLOW, 10.0),
            (Tier.ORANGE, 5 * MINUTE_S),
            bad=False,
        )
    ladder.flag(
        "binding_failed", "binding_ok", f"probes of {name} do not leave by {name}", (Tier.ORANGE, 5.0), bad=False
    )
    nearest = f"{rungs[-1]}.lost_in_row" if rungs else "hq_service.open"
    ladder.unreadable(nearest, (Tier.YELLOW, 30.0), (Tier.ORANGE, 5 * MINUTE_S))
    return tuple(ladder.alarms)


def add_rung(ladder: Ladder, profile: Profile, rung: str, good_s: float) -> None:
    """Add the alarms of one rung of a line."""
    name = ladder.equipment
    answered = ladder.when(f"{rung}.lost_in_row", Op.AT_MOST, 0)
    if profile.dead_lost_in_row is not None:
        dead = ladder.when(f"{rung}.lost_in_row", Op.AT_LEAST, profile.dead_lost_in_row)
    else:
        dead = ladder.when(f"{rung}.silent_s", Op.AT_LEAST, profile.dead_silent_s)
    loss = f"{rung}.loss_ratio"
    clean = ladder.when(loss, Op.BELOW, profile.good_below_ratio)
    hold_s = profile.hold_down_s
    ladder.add(
        f"{rung}_dead",
        f"{rung} does not answer over {name}",
        Rung(Tier.ORANGE, (dead,), (answered,), hold_s, good_s),
        acts=True,
    )
    ladder.add(
        f"{rung}_bad",
        f"too much is lost on the way to {rung} over {name}",
        Rung(Tier.ORANGE, (ladder.when(loss, Op.AT_LEAST, profile.bad_loss_ratio),), (clean,), hold_s, good_s),
        acts=True,
    )
    ladder.add(
        f"{rung}_degraded",
        f"packets are lost on the way to {rung} over {name}",
        Rung(Tier.YELLOW, (ladder.when(loss, Op.AT_LEAST, 0.05),), (clean,), MINUTE_S, MINUTE_S),
        Rung(Tier.ORANGE, (ladder.when(loss, Op.AT_LEAST, 0.15),), (clean,), MINUTE_S, MINUTE_S),
    )


def host_alarms(name: str) -> tuple[AlarmSpec, ...]:
    """Return the alarms of a host that is watched from inside."""
    ladder = Ladder(name)
    five = 5 * MINUTE_S
    ladder.above("cpu_high", "cpu_ratio", f"the processor of {name} is busy", (Tier.YELLOW, 0.90, five, MINUTE_S))
    ladder.above(
        "memory_high",
        "memory_ratio",
        f"the memory of {name} is nearly full",
        (Tier.YELLOW, 0.90, MINUTE_S, MINUTE_S),
        (Tier.ORANGE, 0.97, MINUTE_S, MINUTE_S),
        margin=0.02,
    )
    ladder.above(
        "disk_full",
        "disk_ratio",
        f"a disk of {name} is nearly full",
        (Tier.YELLOW, 0.85, MINUTE_S, MINUTE_S),
        (Tier.ORANGE, 0.95, MINUTE_S, MINUTE_S),
        (Tier.RED, 0.98, MINUTE_S, MINUTE_S),
        margin=0.01,
    )
    ladder.unreadable("memory_ratio", (Tier.YELLOW, MINUTE_S))
    return tuple(ladder.alarms)


def path_alarms(name: str) -> tuple[AlarmSpec, ...]:
    """Return the alarms of the way that the site's own traffic takes."""
    ladder = Ladder(name)
    ladder.flag(
        "path_dead",
        "answered",
        "the site's own traffic does not reach headquarters",
        (Tier.ORANGE, 5.0),
        (Tier.RED, 5 * MINUTE_S),
        bad=False,
    )
    ladder.unreadable("answered", (Tier.YELLOW, MINUTE_S))
    return tuple(ladder.alarms)


KINDS: Final[Mapping[str, Callable[[str], tuple[AlarmSpec, ...]]]] = {
    "ups": ups_alarms,
    "host": host_alarms,
    "path": path_alarms,
}  # lines need their profile and rungs as well: line_alarms
