"""
Judging: what a set of observations says about one condition, in four words: bad, good, between, unknown.

A condition that cannot be seen is unknown, and unknown is never taken for good or bad. A rung of an alarm is bad when all
its enter conditions hold, good when one of its leave conditions holds, between when neither does: the gap between enter
and leave is the hysteresis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.core.model import Fact, Observation, PointId, PointSpec, Quality, Value

FRESH_PERIODS: Final = 3.0  # a point is fresh for three of its periods


class Op(StrEnum):
    """How a condition compares."""

    ABOVE = "above"
    BELOW = "below"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    IS = "is"
    IS_NOT = "is_not"
    UNSEEN = "unseen"  # the point cannot be seen; the only condition that unknown makes true
    SEEN = "seen"  # the point is seen again
    SUSPECT = "suspect"  # the device answers, and contradicts itself
    TRUSTED = "trusted"  # the device answers, and does not contradict itself
    LAST_WAS = "last_was"  # the last good value was this, however old


COMPARING: Final = frozenset({Op.ABOVE, Op.BELOW, Op.AT_LEAST, Op.AT_MOST, Op.IS, Op.IS_NOT})


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of one point."""

    point: PointId
    op: Op
    value: Value = None

    def __str__(self) -> str:
        words = str(self.op).replace("_", " ")
        return f"{self.point} {words}" if self.value is None else f"{self.point} {words} {self.value}"


class Verdict(StrEnum):
    """What the evidence says of one rung."""

    BAD = "bad"
    GOOD = "good"
    BETWEEN = "between"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Points:
    """
    The last observation of each point, its last good value, and what each point is; the whole sight of the core.

    `blind_before` (boot seconds): what was asked earlier (before start, or before a time gap) does not count.
    """

    seen: Mapping[PointId, Observation]
    last_good: Mapping[PointId, Value]
    specs: Mapping[PointId, PointSpec]
    blind_before: float

    def fresh(self, point: PointId, now_s: float, max_age_s: float | None = None) -> Observation | None:
        """Return the observation of *point* when it is not older than three periods (or *max_age_s*), else None."""
        observation = self.seen.get(point)
        if observation is None or observation.asked_at < self.blind_before:
            return None
        spec = self.specs.get(point)
        limit_s = FRESH_PERIODS * spec.period_s if spec is not None else 0.0
        if max_age_s is not None:
            limit_s = max_age_s
        return observation if now_s - observation.asked_at <= limit_s else None

    def fact(self, point: PointId, now_s: float) -> Fact:
        """Return what is known of *point* now, for a record or a view."""
        observation = self.seen.get(point)
        if observation is None or observation.asked_at < self.blind_before:
            return Fact(point, None, Quality.UNKNOWN, None, "")
        quality = observation.quality if self.fresh(point, now_s) is not None else Quality.UNKNOWN
        value = observation.value if quality is not Quality.UNKNOWN else None
        return Fact(point, value, quality, round(now_s - observation.asked_at, 3), observation.source)


def holds(condition: Condition, points: Points, now_s: float) -> bool | None:
    """Return whether *condition* holds, None when that cannot be seen."""
    if condition.op is Op.LAST_WAS:
        return points.last_good.get(condition.point) == condition.value
    observation = points.fresh(condition.point, now_s)
    quality = observation.quality if observation is not None else Quality.UNKNOWN
    if observation is not None and quality is Quality.GOOD and condition.op in COMPARING:  # nearly always
        return compare(condition.op, observation.value, condition.value)
    if condition.op is Op.UNSEEN:
        return quality is Quality.UNKNOWN
    if condition.op is Op.SEEN:
        return quality is not Quality.UNKNOWN
    if observation is None or quality is Quality.UNKNOWN:
        return None
    if condition.op is Op.SUSPECT:
        return quality is Quality.SUSPECT
    if condition.op is Op.TRUSTED:
        return quality is Quality.GOOD
    return None


def compare(op: Op, value: Value, limit: Value) -> bool | None:
    """Return whether *value* stands to *limit* as *op* says; None when the two cannot be compared."""
    if op is Op.IS:
        return value == limit
    if op is Op.IS_NOT:
        return value != limit
    if value is None or limit is None or isinstance(value, str) or isinstance(limit, str):
        return None
    if op is Op.ABOVE:
        return value > limit
    if op is Op.BELOW:
        return value < limit
    return value >= limit if op is Op.AT_LEAST else value <= limit


def all_of(conditions: tuple[Condition, ...], points: Points, now_s: float) -> bool | None:
    """Return the three-valued conjunction: False as soon as one is false, None when that is open."""
    unknown = False
    for condition in conditions:
        answer = holds(condition, points, now_s)
        if answer is False:
            return False
        unknown = unknown or answer is None
    return None if unknown else True


def any_of(conditions: tuple[Condition, ...], points: Points, now_s: float) -> bool | None:
    """Return the three-valued disjunction: True as soon as one is true, None when that is open."""
    unknown = False
    for condition in conditions:
        answer = holds(condition, points, now_s)
        if answer is True:
            return True
        unknown = unknown or answer is None
    return None if unknown else False


def verdict(enter: tuple[Condition, ...], leave: tuple[Condition, ...], points: Points, now_s: float) -> Verdict:
    """Return what the points say of a rung that is entered when all of *enter* hold and left when one of *leave* does."""
    bad = all_of(enter, points, now_s)
    if bad is True:
        return Verdict.BAD
    good = any_of(leave, points, now_s)
    if good is True:
        return Verdict.GOOD
    return Verdict.UNKNOWN if bad is None or good is None else Verdict.BETWEEN
