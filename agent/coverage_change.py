"""What another site file covers less than the one before, and what it covers more: one line for each thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.config import Config
from agent.core.model import Mode
from agent.coverage import Coverage, Fault, report

WEIGHT: Final = {None: 0, Mode.OFF: 0, Mode.WATCH: 1, Mode.ASK: 2, Mode.AUTO: 3}  # how far the answer to a fault goes


@dataclass(frozen=True, slots=True)
class CoverageChange:
    """Both ways, as lines of text."""

    no_longer_covered: tuple[str, ...]
    newly_covered: tuple[str, ...]


def coverage_change(old: Config, new: Config) -> CoverageChange:
    """Return what *new* covers differently than *old*: equipment, alarms of equipment in both, and single faults."""
    before, after = report(old), report(new)
    return CoverageChange(
        no_longer_covered=(*watched_only(before, after), *alarms_only(old, new), *answered_more(before, after)),
        newly_covered=(*watched_only(after, before), *alarms_only(new, old), *answered_more(after, before)),
    )


def watched_only(here: Coverage, there: Coverage) -> list[str]:
    """Return the equipment that is watched *here* and not *there*."""
    names = {one.equipment for one in there.watched}
    return [one.line() for one in here.watched if one.equipment not in names]


def alarms_only(here: Config, there: Config) -> list[str]:
    """Return the alarms, and the tiers of them, that equipment of both has *here* alone."""
    lines = []
    for key, spec in here.site.alarms.items():
        if spec.equipment not in there.site.equipment:
            continue  # told as equipment
        other = there.site.alarms.get(key)
        if other is None:
            lines.append(f"alarm {key}")
        else:
            tiers = {rung.tier for rung in other.rungs}
            lines += [f"alarm {key}, {rung.tier}" for rung in spec.rungs if rung.tier not in tiers]
    return lines


def answered_more(here: Coverage, there: Coverage) -> list[str]:
    """Return the single faults that are named *here* alone, or answered *here* by more."""
    others = {fault.id: fault for fault in there.faults}
    lines = [line for fault in here.faults if (line := more(fault, others.get(fault.id))) is not None]
    return list(dict.fromkeys(lines))


def more(fault: Fault, other: Fault | None) -> str | None:
    """Return *fault* as a line when *other*, the same fault elsewhere, is missing or answered by less."""
    if other is None:
        return fault.line()
    if WEIGHT[fault.mode] <= WEIGHT[other.mode]:
        return None
    return f"{fault.line()} (else: {other.line().removeprefix(f'{other.text}: ')})"
