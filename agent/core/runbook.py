"""
A runbook as data: a straight line of steps that can be read aloud, each naming a wanted state and how it is proven.

Binding to the site's equipment has been done when a runbook reaches the core: verbs carry line names, proofs carry points
with the values that prove them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.core.judge import Condition
from agent.core.model import Mode, PointId, Value


class IfDenied(StrEnum):
    """What follows when a step's proof does not come in time."""

    UNDO = "undo"
    HOLD = "hold"
    NEXT = "next"


class OnReturn(StrEnum):
    """What the clearing of the cause does before the point of no return."""

    UNDO = "undo"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One step. `wanted` is the verb's data, `proof` must hold within `within_s` after the command returned, `start` shows
    that nothing has moved yet. `resendable`: harmless to send twice.
    """

    verb: str
    wanted: tuple[tuple[str, Value], ...]
    proof: tuple[Condition, ...]
    start: tuple[Condition, ...]
    within_s: float
    if_denied: IfDenied
    resendable: bool
    point_of_no_return: bool = False
    title_en: str = ""
    title_zh: str = ""

    def points(self) -> tuple[PointId, ...]:
        """Return the points that prove this step."""
        return tuple(dict.fromkeys(c.point for c in self.proof + self.start))


@dataclass(frozen=True, slots=True)
class Limits:
    """How often it may act: `budget` runs in `budget_s` seconds (None: no limit), then locked; quiet `block_s` after."""

    budget: int | None
    budget_s: float
    block_s: float


@dataclass(frozen=True, slots=True)
class Failback:
    """The way home: automatic or not, after the primary has been good for `good_for_s`, so often a day at most."""

    automatic: bool
    good_for_s: float
    per_day: int


@dataclass(frozen=True, slots=True)
class Runbook:
    """
    One runbook bound to the site. `cause` and `role` start it, or `returns_from` (the arrangement that it ends).

    `leaves` and `enters` are line names: away from what, on to what. `digest` is the hash of file and binding.
    """

    name: str
    digest: str
    mode: Mode
    cause: str | None
    leaves: str
    enters: str
    steps: tuple[Step, ...]
    limits: Limits
    on_return: OnReturn
    arrangement: str
    lock: str
    failback: Failback | None = None
    returns_from: str | None = None
    title_en: str = ""
    title_zh: str = ""

    @property
    def is_return(self) -> bool:
        """Tell whether this is the way home of another runbook."""
        return self.returns_from is not None
