"""Writes docs/alarms.md out of the shipped alarms: `tools/alarm_table.py > docs/alarms.md`. A test compares both."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.core.alarm import AlarmSpec
from agent.core.judge import Condition
from agent.core.ladders import KINDS, line_alarms
from agent.core.profiles import PROFILES

HEAD = """\
# Alarms

What is shipped, for each kind of equipment. This page is made from the tables in `agent/core/ladders.py` by
`tools/alarm_table.py`; a test compares the two.

An alarm is one measure with a ladder of tiers. A tier becomes active when all its *enter* conditions have held for the
*on-delay*, and ends when one of its *leave* conditions has held for the *off-delay*. In between it stays as it is. What
cannot be seen neither clears an alarm nor calls it off: a tier that waits for its on-delay goes on waiting, one that
waits for its off-delay goes back to active. Four activations within ten minutes are flapping: clearing then takes ten
minutes at least.

A site changes single tiers under `alarms:` ([how](configuration.md#alarms)); the name there is `EQUIPMENT.ALARM`, or
`ALARM` for every piece of equipment that has it.

A line's alarms whose name ends in `_dead` or `_bad`, and its `port_down`, may start a runbook. All others only warn.
"""
COLUMNS = "| alarm | tier | enter | leave | on-delay | off-delay |\n|---|---|---|---|---|---|"
KIND_HEADS = {
    "ups": "## UPS (`kind: ups`)",
    "host": "## Host (`kind: host`)",
    "path": "## Way of the site's own traffic (`kind: path`)",
}
LINE_HEAD = """\
## Line (`kind: line`)

`TARGET` stands for each of `cpe`, `edge`, `hq`, `second_site` that the line has. The off-delay of `TARGET_dead`,
`TARGET_bad` and `port_down` is that of the profile unless a runbook's `failback: {good_for: …}` gives another.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for kind, head in KIND_HEADS.items():
        parts.append(f"{head}\n\n{table(KINDS[kind](kind))}\n")
    parts.append(LINE_HEAD)
    for name, profile in PROFILES.items():
        alarms = line_alarms("line", profile, ("TARGET",), has_port=True, has_service=True)
        parts.append(f"### Profile `{name}`\n\n{table(alarms)}\n")
    return "\n".join(parts)


def table(alarms: Iterable[AlarmSpec]) -> str:
    """Return *alarms* as one table, one row for each tier."""
    return "\n".join([COLUMNS, *(row for alarm in alarms for row in rows(alarm))])


def rows(alarm: AlarmSpec) -> list[str]:
    """Return the rows of one alarm."""
    found = []
    for rung in alarm.rungs:
        enter, leave = " and ".join(map(words, rung.enter)), " or ".join(map(words, rung.leave))
        delays = f"{duration(rung.on_delay_s)} | {duration(rung.off_delay_s)}"
        found.append(f"| `{alarm.name}` | {rung.tier} | {enter} | {leave} | {delays} |")
    return found


def words(condition: Condition) -> str:
    """Return *condition* in words, without the equipment's name."""
    point = condition.point.partition(".")[2]
    text = f"`{point}` {str(condition.op).replace('_', ' ')}"
    value = condition.value
    if value is None:
        return text
    if isinstance(value, bool):
        return f"{text} {str(value).lower()}"
    if isinstance(value, int | float):
        return f"{text} {figure(point, value)}"
    return f"{text} {value}"


def figure(point: str, value: float) -> str:
    """Return *value* in the unit of *point*."""
    if point.endswith("_ratio"):
        return f"{value * 100:.4g} %"
    return duration(value) if point.endswith("_s") else f"{value:.5g}"


def duration(length_s: float) -> str:
    """Return a length of time as the site file writes it."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if length_s >= size and length_s % size == 0:
            return f"{length_s / size:g}{unit}"
    return f"{round(length_s):g}s" if length_s >= 60 else f"{length_s:g}s"


if __name__ == "__main__":
    sys.stdout.write(page())
