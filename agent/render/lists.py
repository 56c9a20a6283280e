"""Lists of incidents and runbooks, the plan of a runbook, and what a watcher sees of status, as text for people."""

from __future__ import annotations

from typing import Any, Final

from agent.render.base import Plain, fact_row, say, section, time_text
from agent.render.now import alarm_row, block_text, incident_row, status_text
from agent.render.why import guard_row, locks, step_row

# What moves with the clock alone, and what a watcher is not shown.
PASSING: Final = frozenset(
    {"equipment", "at", "head", "last_sequence", "durable_sequence", "why_not", "facts", "evidence"}
)


def incidents_text(incidents: list[Plain], alarms: list[Plain], ended: list[Plain]) -> str:
    """Return the open incidents with their alarms, and the *ended* ones."""
    lines: list[str] = []
    for one in incidents:
        noted = f" ({say('acknowledged', owner=one['acknowledged_by'])})" if one["acknowledged_by"] else ""
        lines.append(incident_row(one) + noted)
        lines += [f"    {alarm_row(alarm)}" for alarm in alarms if alarm["key"] in one["alarms"]]
    lines = lines or [say("no_incidents")]
    return "\n".join(lines + section(say("head_ended"), map(ended_row, ended))) + "\n"


def ended_row(one: Plain) -> str:
    """Return one ended incident as a row."""
    how = say("incident_merged", into=one["merged_into"]) if one["merged_into"] else ""
    ended = say("incident_ended", ended_at=one["ended_at"])
    return f"{incident_row(one)}  {how or ended}"


def runbooks_text(runbooks: Plain) -> str:
    """Return every runbook: its mode, its budget, its open run, and what keeps it quiet."""
    lines: list[str] = []
    for name, book in runbooks.items():
        budget = say("listed_free")
        if book["budget"] is not None:
            budget = say("listed_budget", spent=book["spent"], budget=book["budget"], time=time_text(book["budget_s"]))
        run = say("listed_run", run=book["run"]) if book["run"] else ""
        words = {key: book[key] for key in ("mode", "leaves", "enters")}
        lines.append(say("listed_book", name=name, budget=budget, run=run, **words))
        lines += [f"    {block_text(lock)}" for lock in book["locks"]]
    return "\n".join(lines or [say("no_runbooks")]) + "\n"


def plan_text(one: Plain) -> str:
    """Return what a runbook would do now, and what speaks against it."""
    lines = [say("plan", id=one["id"], mode=one["mode"], leaves=one["leaves"], enters=one["enters"])]
    lines.append(say("plan_by_itself", text=one["by_itself"]["text"] or say("may_act")))
    lines.append(say("plan_ordered", text=one["ordered"]["text"] or say("may_act")))
    lines += section(say("head_steps"), map(planned_row, one["steps"]))
    lines += section(say("head_guards"), map(planned_guard, one["guards"]))
    lines += section(say("head_proof", enters=one["enters"]), map(fact_row, one["facts"]))
    return "\n".join(lines + locks(one)) + "\n"


def planned_row(step: Plain) -> str:
    """Return one step of a plan as a row."""
    marks = say("plan_no_return") if step["point_of_no_return"] else ""
    return say("plan_step", step=step_row(step), now=say(f"plan_{step['now']}"), marks=marks)


def planned_guard(guard: Plain) -> str:
    """Return one guard of a plan as a row."""
    if guard["ordered"] and guard["by_itself"]:
        return guard_row(guard)
    return guard_row(guard) + say("plan_order_guard" if guard["ordered"] else "plan_cause_guard")


# ---------------------------------------------------------------- watching


def watch_text(status: Plain) -> str:
    """Return what a watcher is shown of `status`: all but the single points."""
    return status_text({**status, "equipment": {}})


def lasting(status: Any) -> Any:
    """Return `status` without what moves with the clock alone: while this is the same, nothing has changed."""
    if isinstance(status, dict):
        if status.keys() == {"state", "reason"}:  # how ready a line is; the reason counts percents
            return status["state"]
        return {k: lasting(v) for k, v in status.items() if k not in PASSING and not k.endswith("_s")}
    return [lasting(one) for one in status] if isinstance(status, list) else status
