"""An explanation as text for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.render.base import Plain, fact_row, say, section, time_text, value_text

BY_PEOPLE: Final = (("run_ordered", "asked_by"), ("run_aborted", "aborted_by"))


def explain_text(plain: Plain) -> str:
    """Return what `explain` gave (docs/commands.md) as text."""
    lines = {"incident": incident_text, "alarm": alarm_text, "run": run_text, "runbook": runbook_text}[plain["type"]](
        plain
    )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- incidents


def incident_text(one: Plain) -> list[str]:
    """Return why an incident has this cause, and what the runbooks made of it."""
    lines = [say("incident", id=one["id"], tier=one["tier"], state=one["state"])]
    lines.append(say("incident_cause" if one["settled"] else "incident_unsettled", cause=one["cause"]))
    if one["late"] and one["settled"]:
        lines.append(say("incident_late"))
    if one["marks"]:
        lines.append(say("incident_marks", marks=", ".join(one["marks"])))
    duration = say("for_time", time=time_text(one["for_s"])) if one["for_s"] is not None else ""
    lines.append(say("incident_opened", opened_at=one["opened_at"], duration=duration))
    if one["merged_into"]:
        lines.append(say("incident_merged", into=one["merged_into"]))
    if one["ended_at"]:
        lines.append(say("incident_ended", ended_at=one["ended_at"]))
    lines += section(say("head_named"), (row for c in one["named"] for row in predicted_rows(c)))
    lines += section(say("head_not_taken"), (not_taken_row(row) for row in one["not_taken"]))
    lines += section(say("head_evidence"), map(fact_row, one["evidence"]))
    lines += section(say("head_facts"), map(fact_row, one["facts"]))
    return lines + section(say("head_runbooks"), (row for book in one["runbooks"] for row in book_rows(book)))


def predicted_rows(candidate: Plain) -> Iterable[str]:
    """Give what a cause predicts, and how each of it is seen."""
    for point in candidate["predicts"]:
        seen = point["seen"] if point["seen"] is not None else say("unknown")
        yield say("predicted", alarms=", ".join(point["alarms"]), seen=seen)


def not_taken_row(row: Plain) -> str:
    """Return one cause that was in question, and what refuted it."""
    return say("not_taken", text=row["text"] or row["id"], reason=row["reason"])


def book_rows(book: Plain) -> Iterable[str]:
    """Give what one runbook did about an incident."""
    name, now = book["runbook"], book["now"]
    for run in book["runs"]:
        reason = f": {run['reason']}" if run["reason"] else ""
        yield say("book_ran", runbook=name, id=run["id"], state=run["state"], reason=reason)
    refusal = book["refusal"]
    if refusal is not None:
        yield say("book_refused", runbook=name, text=refusal["text"], code=refusal["code"], at=refusal["at"])
    if now["answer"] == "nothing_to_do" and not book["runs"] and refusal is None:
        yield say("book_idle", runbook=name, text=now["text"])
    elif now["answer"] == "refused" and (refusal is None or now["text"] != refusal["text"]):
        yield say("book_now", runbook=name, text=now["text"])


# ---------------------------------------------------------------- alarms


def alarm_text(one: Plain) -> list[str]:
    """Return what an alarm looks at, its limits, and where it stands."""
    name = f"{one['id']} " if one["id"] else ""
    lines = [say("alarm", id=name, key=one["key"], tier=one["tier"], state=one["state"])]
    if one["text"]:
        lines.append(f"{one['text']}.")
    if one["since"]:
        lines.append(say("alarm_since", since=one["since"]))
    if one["acts"] is not None:
        lines.append(say("alarm_acts" if one["acts"] else "alarm_warns"))
    marks = (("alarm_blind", "blind"), ("alarm_unconfirmed", "unconfirmed"), ("alarm_older", "older_than_start"))
    lines += [say(text) for text, key in marks if one.get(key)]
    if one.get("acknowledged_by"):
        lines.append(say("alarm_noted", owner=one["acknowledged_by"]))
    if one.get("shelved_until"):
        words = {"owner": one["shelved_by"], "until": one["shelved_until"], "reason": one["shelve_reason"]}
        lines.append(say("alarm_shelved", **words))
    if one["incidents"]:
        lines.append(say("alarm_in", incidents=", ".join(one["incidents"])))
    lines += section(say("head_rungs"), map(rung_row, one["rungs"]))
    lines += section(say("head_facts"), map(fact_row, one["facts"]))
    return lines + section(say("head_faults"), (say("fault", **row) for row in one["faults"]))


def rung_row(rung: Plain) -> str:
    """Return one tier of an alarm as a row."""
    following = ""
    if rung["next"] and rung["changes_in_s"] is not None:
        following = say("rung_next", next=rung["next"], time=time_text(rung["changes_in_s"]))
    return say(
        "rung",
        tier=rung["tier"],
        state=rung["state"],
        seen=rung["seen"],
        on=time_text(rung["on_delay_s"]),
        off=time_text(rung["off_delay_s"]),
        enter=", ".join(condition_text(c) for c in rung["enter"]),
        leave=" | ".join(condition_text(c) for c in rung["leave"]),
        next=following,
    )


def condition_text(condition: Plain) -> str:
    """Return one condition and whether it holds now."""
    word = {True: "holds", False: "not_holds", None: "unseen"}[condition["holds"]]
    return f"{condition['text']} ({say(word)})"


# ---------------------------------------------------------------- runs and runbooks


def run_text(one: Plain) -> list[str]:
    """Return what a run has done and what it waits for."""
    reason = f": {one['reason']}" if one["reason"] else ""
    lines = [say("run", id=one["id"], runbook=one["runbook"], state=one["state"], reason=reason)]
    cause = f" ({one['cause']})" if one["cause"] else ""
    lines.append(say("run_for", opened_at=one["opened_at"], incident=one["incident"] or say("unknown"), cause=cause))
    lines += [say(text, owner=one[key]) for text, key in BY_PEOPLE if one[key]]
    if one["ended_at"]:
        lines.append(say("run_ended", ended_at=one["ended_at"]))
    if one["ends_in_s"] is not None:
        lines.append(say("run_deadline", time=time_text(one["ends_in_s"])))
    if one["restarted"]:
        lines.append(say("run_restarted"))
    if one["paused"]:
        lines.append(say("run_paused"))
    if one["command"] is not None and one["command"]["answer"] == "refused":
        lines.append(say("run_command", text=one["command"]["text"]))
    if one["choices"]:
        lines.append(say("run_choices", choices=", ".join(one["choices"])))
    lines += section(say("head_steps"), map(step_row, one["step_list"]))
    lines += section(say("head_facts"), map(fact_row, one["facts"]))
    return lines + section(say("head_arrangements"), one["arrangements"]) + locks(one)


def step_row(step: Plain) -> str:
    """Return one step as a row."""
    progress = step.get("progress")
    return say(
        "step" if progress is not None else "step_plan",
        number=step["step"] + 1,
        verb=step["verb"],
        wanted=" ".join(f"{key} {value_text(value)}" for key, value in step["wanted"].items()),
        progress=progress,
        within=time_text(step["within_s"]),
        proof=", ".join(condition_text(c) for c in step["proof"]),
    )


def runbook_text(one: Plain) -> list[str]:
    """Return what a runbook is for, what it may do, and what it would say if it were asked now."""
    lines = [say("runbook", id=one["id"], mode=one["mode"], leaves=one["leaves"], enters=one["enters"])]
    now, limits, failback = one["now"], one["limits"], one["failback"]
    lines.append(say("runbook_answer", text=now["text"] or say("may_act")))
    if limits["budget"] is None:
        lines.append(say("no_budget"))
    else:
        within = time_text(limits["budget_s"])
        lines.append(say("budget", spent=one["spent"], budget=limits["budget"], time=within))
    if failback is not None:
        how = say("automatic" if failback["automatic"] else "by_hand")
        lines.append(say("failback", how=how, good=time_text(failback["good_for_s"]), per_day=failback["per_day"]))
    refusal = one["refusal"]
    if refusal is not None:
        lines.append(
            say("book_refused", runbook=one["id"], text=refusal["text"], code=refusal["code"], at=refusal["at"])
        )
    lines += section(say("head_steps"), map(step_row, one["steps"]))
    lines += section(say("head_guards"), map(guard_row, one["guards"]))
    return lines + section(say("head_proof", enters=one["enters"]), map(fact_row, one["facts"])) + locks(one)


def guard_row(guard: Plain) -> str:
    """Return one guard as a row."""
    return say("guard_for" if guard["against"] is None else "guard_against", **guard)


def locks(one: Plain) -> list[str]:
    """Return what keeps a runbook quiet."""
    rows = (say(b["kind"], runbook=b["runbook"], reason=b["reason"], time=time_text(b["left_s"])) for b in one["locks"])
    return section(say("head_blocks"), rows)
