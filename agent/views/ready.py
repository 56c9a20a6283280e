"""Whether a line that stands by could carry the site now, by the rungs that would have to prove it."""

from __future__ import annotations

from typing import Final

from agent.core.alarm import AlarmState
from agent.core.model import Observation, PointId, Quality
from agent.core.policy import proving_rungs
from agent.core.site import LineFacts
from agent.core.work import Work
from agent.views.parts import Plain

READY: Final = "ready"
NOT_READY: Final = "not_ready"
UNKNOWN: Final = "unknown"


def readiness(work: Work) -> dict[str, Plain]:
    """Return {line: {state, reason}} for every line with the role standby or that a runbook would move the site to."""
    named = [book.enters for book in work.site.runbooks.values() if not book.is_return]
    named += [e.name for e in work.site.equipment.values() if e.line is not None and e.line.role == "standby"]
    found: dict[str, Plain] = {}
    for name in dict.fromkeys(named):
        equipment = work.site.equipment.get(name)
        if equipment is not None and equipment.line is not None:
            state, reason = line_readiness(work, name, equipment.line)
            found[name] = {"state": state, "reason": reason}
    return found


def line_readiness(work: Work, name: str, line: LineFacts) -> tuple[str, str]:
    """Return (state, reason) of one line: what is seen bad counts before what is not seen."""
    rungs = proving_rungs(line)
    if not rungs:
        return NOT_READY, f"{name} has no far target that could prove it"
    standing = standing_alarm(work, name)
    if standing is not None:
        return NOT_READY, f"{name} is bad: {standing}"
    answers = [rung_readiness(work, name, rung, line.bad_loss_ratio) for rung in rungs]
    for wanted in (NOT_READY, UNKNOWN):
        for state, reason in answers:
            if state == wanted:
                return state, reason
    return READY, f"{name} reaches {', '.join(rungs)}"


def standing_alarm(work: Work, name: str) -> str | None:
    """Return the text of the first active alarm of line *name* that may move a runbook."""
    for key, spec in work.site.alarms.items():
        alarm = work.durable.alarms.get(key)
        if spec.equipment == name and spec.acts and alarm is not None and alarm.state() is AlarmState.ACTIVE:
            return spec.text
    return None


def rung_readiness(work: Work, name: str, rung: str, bad_loss_ratio: float) -> tuple[str, str]:
    """Return (state, reason) of one rung of a line."""
    lost, loss = seen(work, f"{name}.{rung}.lost_in_row"), seen(work, f"{name}.{rung}.loss_ratio")
    if lost is not None and lost.value != 0:
        return NOT_READY, f"{rung} does not answer over {name}"
    if loss is not None and isinstance(loss.value, int | float) and loss.value >= bad_loss_ratio:
        return NOT_READY, f"{name} loses {loss.value:.0%} on the way to {rung}"
    if lost is None or loss is None or not isinstance(loss.value, int | float):
        return UNKNOWN, f"{rung} cannot be seen over {name}"
    return READY, ""


def seen(work: Work, point: str) -> Observation | None:
    """Return the good observation of *point* that a swap could rest on now."""
    observation = work.points.fresh(PointId(point), work.now_s, work.site.evidence_max_age_s)
    return observation if observation is not None and observation.quality is Quality.GOOD else None
