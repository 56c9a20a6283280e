"""
Verb `wait_until`: sends nothing; the verify of its step waits. `{wait_until: {points: {mains.present: true}}}`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.core.model import Request, Value
from agent.ports import ActionContext, ActionKind

SENT_NOTHING: Final = "nothing was to be done: the step waits until its points are as wanted"


@dataclass(frozen=True, slots=True)
class WaitUntilParams:
    """Wanted value of each point, by the point's full name."""

    points: Mapping[str, Value]


class WaitUntil:
    """Commands nothing."""

    async def perform(self, request: Request) -> str:
        """Return at once."""
        return SENT_NOTHING

    async def undo(self, request: Request) -> str:
        """Return at once."""
        return SENT_NOTHING


def _make(context: ActionContext) -> WaitUntil:
    return WaitUntil()


def _expects(params: WaitUntilParams, bind: Mapping[str, str]) -> Mapping[str, Value]:
    return dict(params.points)


def _start(params: WaitUntilParams, bind: Mapping[str, str]) -> Mapping[str, Value]:
    return {}  # nothing moves by it, so that no value could tell "before" from "after"


KIND: Final = ActionKind(
    name="wait_until",
    params=WaitUntilParams,
    channel="none",
    resendable=True,
    make=_make,
    expects=_expects,
    start=_start,
)
