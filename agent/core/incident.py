"""
An incident: the alarms of one site that have one cause, from the first active one until the last is normal.

Its id and start stay when the cause is refined or replaced while points are still bad. When two turn out to be one, the
younger closes as merged into the older.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.core.model import AlarmKey, At, Fact, Tier


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    CLOSED = "closed"
    MERGED = "merged"


class Turn(StrEnum):
    """What may happen to an incident."""

    UPDATED = "updated"
    CLEARED = "cleared"
    ABSORBED = "absorbed"


TRANSITIONS: Final[Mapping[tuple[IncidentState, Turn], IncidentState]] = {
    (IncidentState.OPEN, Turn.UPDATED): IncidentState.OPEN,
    (IncidentState.OPEN, Turn.CLEARED): IncidentState.CLOSED,
    (IncidentState.OPEN, Turn.ABSORBED): IncidentState.MERGED,
}  # an ended incident never moves again


@dataclass(frozen=True, slots=True)
class Cause:
    """
    What an incident comes from. `candidates` are ids of candidates, more than one while unsettled. `kind`: line, hq,
    observer, provider, utility, input, service, device, or "unsettled". `late`: named for want of a better one.
    """

    candidates: tuple[str, ...]
    kind: str
    equipment: tuple[str, ...]
    settled: bool
    marks: tuple[str, ...]
    text: str
    late: bool


@dataclass(frozen=True, slots=True)
class Incident:
    """
    One incident. `alarms` are those that stand now, `children` every alarm that ever belonged to it, `against` why other
    causes were not taken, `evidence` the facts that its present cause was named on.
    """

    id: str
    cause: Cause
    tier: Tier
    opened_at: At
    alarms: tuple[AlarmKey, ...]
    children: tuple[AlarmKey, ...]
    against: tuple[str, ...]
    evidence: tuple[Fact, ...]
    state: IncidentState = IncidentState.OPEN
    ended_at: At | None = None
    merged_into: str | None = None
