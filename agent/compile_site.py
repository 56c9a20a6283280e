"""Makes what the core needs of the declared equipment: points, shipped alarms, and the overrides of the site file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Final

from agent.core.alarm import AlarmSpec, Rung
from agent.core.judge import Condition, Op
from agent.core.ladders import KINDS, line_alarms
from agent.core.model import PointId, PointSpec, Value
from agent.core.profiles import PROFILES
from agent.core.site import Equipment, LineFacts
from agent.equipment import Declared, word_of
from agent.fields import Node, did_you_mean, mapping, number, optional, ratio, seconds

RUNGS: Final = ("cpe", "edge", "hq", "second_site")  # nearest first
RUNG_KEYS: Final = ("enter", "leave", "on_delay", "off_delay")
HIGH: Final = (Op.ABOVE, Op.AT_LEAST)
LOW: Final = (Op.BELOW, Op.AT_MOST)
RATIO_MAX: Final = 2.0  # a load may be more than what is rated
LIMITED: Final = (*HIGH, *LOW)

Specs = Mapping[PointId, PointSpec]


def point_specs(found: Mapping[str, Declared]) -> dict[str, Mapping[str, PointSpec]]:
    """Return what each piece of equipment with a working declaration tells: its points by their name within it."""
    return {
        one.name: one.probe.specs(one.config)
        for one in found.values()
        if one.probe is not None and one.config is not None
    }


def full_points(specs: Mapping[str, Mapping[str, PointSpec]]) -> dict[PointId, PointSpec]:
    """Return every point of the site by its full name."""
    return {PointId(f"{word}.{point}"): spec for word, points in specs.items() for point, spec in points.items()}


def line_facts(line: Declared, points: Iterable[str]) -> LineFacts:
    """Return what judging needs of *line*, whose probe offers *points*."""
    known = frozenset(points)
    return LineFacts(
        role=word_of(line, "role"),
        rungs=tuple(rung for rung in RUNGS if f"{rung}.lost_in_row" in known),
        bad_loss_ratio=PROFILES[word_of(line, "profile")].bad_loss_ratio,
        has_port="carrier" in known,
        has_service="hq_service.open" in known,
        provider=word_of(line, "provider") or None,
    )


def core_equipment(found: Mapping[str, Declared], specs: Mapping[str, Mapping[str, PointSpec]]) -> dict[str, Equipment]:
    """Return the equipment as the core knows it."""
    return {
        one.name: Equipment(
            name=one.name,
            kind=one.kind,
            fed_by=one.fed_by,
            through=one.through,
            line=line_facts(one, specs[one.name]) if one.kind == "line" and one.name in specs else None,
        )
        for one in found.values()
    }


def shipped_alarms(
    found: Mapping[str, Declared], equipment: Mapping[str, Equipment], points: Specs, good_for_s: Mapping[str, float]
) -> tuple[AlarmSpec, ...]:
    """
    Return the alarms that come with each kind, as far as the probe offers the points that they look at.

    *good_for_s*: line -> for how long it must be good again, where a runbook says so.
    """
    alarms: list[AlarmSpec] = []
    for one in found.values():
        facts = equipment[one.name].line
        if facts is not None:
            alarms += line_alarms(
                one.name,
                PROFILES[word_of(one, "profile")],
                facts.rungs,
                has_port=facts.has_port,
                has_service=facts.has_service,
                good_for_s=good_for_s.get(one.name),
            )
        elif one.kind in KINDS and one.is_whole():
            alarms += KINDS[one.kind](one.name)
    return tuple(alarm for alarm in alarms if alarm.points() <= points.keys())


# ---------------------------------------------------------------- overrides


def overridden(
    node: Node | None, alarms: tuple[AlarmSpec, ...], points: Specs, broken: Iterable[Declared]
) -> tuple[AlarmSpec, ...]:
    """
    Return *alarms* as the section `alarms` has them; mistakes are noted.

    A key is `equipment.alarm`, or `alarm` for every piece of equipment that has it; the first wins over the second.
    *broken*: equipment whose own keys are wrong, so that not all its alarms are known.
    """
    if node is None or node.value is None or not mapping(node, what="a mapping of alarms to what differs"):
        return alarms
    possible = [*alarms, *(a for one in broken if one.kind in KINDS for a in KINDS[one.kind](one.name))]
    known = {str(alarm.key) for alarm in possible} | {alarm.name for alarm in possible}
    unclear = {one.name for one in broken if one.kind not in KINDS}  # a line, whose alarms depend on its targets
    for key, child in node.children():
        if key not in known and key.partition(".")[0] not in unclear and not (unclear and "." not in key):
            child.wrong("there is no such alarm", did_you_mean(key, known), key=True)
    kept = (with_overrides(node, alarm, points) for alarm in alarms)
    return tuple(alarm for alarm in kept if alarm.rungs)


def with_overrides(node: Node, alarm: AlarmSpec, points: Specs) -> AlarmSpec:
    """Return *alarm* with what the section *node* says of its name, then of its full name."""
    for key in (alarm.name, str(alarm.key)):
        child = node.get(key)
        alarm = alarm if child is None else override(child, alarm, points)
    return alarm


def override(node: Node, alarm: AlarmSpec, points: Specs) -> AlarmSpec:
    """Return *alarm* with what *node* says; without any rung when it is off."""
    if node.value == "off":
        return replace(alarm, rungs=())
    tiers = [str(rung.tier) for rung in alarm.rungs]
    if not mapping(node, tiers, what="off, or a mapping such as {orange: {on_delay: 3m}}"):
        return alarm
    rungs: list[Rung] = []
    for rung in alarm.rungs:
        child = node.get(str(rung.tier))
        if child is None:
            rungs.append(rung)
        elif child.value != "off":
            rungs.append(override_rung(child, rung, points))
    check_order(node, alarm, rungs)
    return replace(alarm, rungs=tuple(rungs))


def override_rung(node: Node, rung: Rung, points: Specs) -> Rung:
    """Return *rung* with the limits and delays that *node* gives."""
    if not mapping(node, RUNG_KEYS, what="off, or a mapping with enter, leave, on_delay, off_delay"):
        return rung
    old = limit_of(rung.enter)
    enter = new_limit(node.get("enter"), rung.enter, points)
    leave_node = node.get("leave")
    leave = new_limit(leave_node, rung.leave, points)
    new = limit_of(enter)
    if leave_node is None and old is not None and new is not None and old.value != new.value:
        leave = moved(rung.leave, old, new)
    check_gap(leave_node or node, enter, leave)
    return Rung(
        tier=rung.tier,
        enter=enter,
        leave=leave,
        on_delay_s=optional(node.get("on_delay"), seconds, rung.on_delay_s),
        off_delay_s=optional(node.get("off_delay"), seconds, rung.off_delay_s),
    )


def limit_of(conditions: tuple[Condition, ...]) -> Condition | None:
    """Return the one of *conditions* that has a limit."""
    return next((condition for condition in conditions if condition.op in LIMITED), None)


def new_limit(node: Node | None, conditions: tuple[Condition, ...], points: Specs) -> tuple[Condition, ...]:
    """Return *conditions* with the limit that *node* gives, in the unit of the point."""
    if node is None:
        return conditions
    old = limit_of(conditions)
    if old is None:
        node.wrong("this alarm has no limit, it looks at a yes or no", "change on_delay or off_delay")
        return conditions
    readers: Mapping[str, Callable[[Node], float | None]] = {"s": seconds, "ratio": lambda at: ratio(at, RATIO_MAX)}
    value = readers.get(points[old.point].unit, number)(node)
    if value is None:
        return conditions
    return tuple(replace(c, value=value) if c is old else c for c in conditions)


def moved(leave: tuple[Condition, ...], old: Condition, new: Condition) -> tuple[Condition, ...]:
    """Return *leave* moved in proportion to *new*, so that the gap between the two stays the same share."""
    before, after = figure(old.value), figure(new.value)
    if not before:
        return leave
    return tuple(
        replace(c, value=figure(c.value) * after / before) if c.op in LIMITED and c.point == old.point else c
        for c in leave
    )


def figure(value: Value) -> float:
    """Return a limit as a number."""
    return float(value) if isinstance(value, int | float) else 0.0


def check_gap(node: Node, enter: tuple[Condition, ...], leave: tuple[Condition, ...]) -> None:
    """Note a leave limit on the wrong side of the enter limit: the alarm would be entered and left at once."""
    upper, lower = limit_of(enter), limit_of(leave)
    if upper is None or lower is None or upper.point != lower.point:
        return
    at, back = figure(upper.value), figure(lower.value)
    if upper.op in HIGH and back > at:
        node.wrong(f"leave ({back:g}) must not be above enter ({at:g})")
    elif upper.op in LOW and back < at:
        node.wrong(f"leave ({back:g}) must not be below enter ({at:g})")


def check_order(node: Node, alarm: AlarmSpec, rungs: list[Rung]) -> None:
    """Note a tier that would be reached before the one below it."""
    if alarm.rungs == tuple(rungs):
        return
    limits = [(rung, limit) for rung in rungs if (limit := limit_of(rung.enter)) is not None]
    for (low, first), (high, second) in pairwise(limits):
        rises = first.op in HIGH
        wrong = figure(second.value) < figure(first.value) if rises else figure(second.value) > figure(first.value)
        if first.point == second.point and wrong:
            at = node.get(str(high.tier)) or node.get(str(low.tier)) or node
            side = "below" if rises else "above"
            over, under = f"{high.tier} ({figure(second.value):g})", f"{low.tier} ({figure(first.value):g})"
            at.wrong(f"the limit of {over} is {side} that of {under}")
