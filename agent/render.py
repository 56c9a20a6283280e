"""
Status and explanations as plain text for people. Every sentence stands in TEXTS, so that another language is another table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Plain = Mapping[str, Any]

TEXTS: Final[Mapping[str, str]] = {
    # status
    "site": "{name} ({id}): {tier}",
    "not_running": "THE AGENT IS NOT RUNNING. This is what its journal remembers; nothing is watched and nothing acts.",
    "cause": "Cause: {cause}",
    "mode": "Mode: {mode}",
    "acting": "Acting: allowed",
    "not_acting": "Acting: not allowed: {why}",
    "hold": "On hold by {owner} since {since}: {reason}{finish}{end}",
    "hold_finish": "; runs that have begun may finish",
    "hold_end": "; ends in {time}",
    "no_reason": "no reason given",
    "journal": "Journal: durable up to record {durable}",
    "journal_behind": "Journal: NOT DURABLE: {reason} (record {last} decided, {durable} on disk)",
    "journal_cut": "Journal: a torn tail was cut off at start: {cut}",
    "journal_safe": "Journal: not to be trusted: {reason}",
    "arrangement": "{name}: the site is on {line} since {since} ({time}), by run {run} of {runbook}",
    "lockout": "{runbook} is locked until a person resets it: {reason}",
    "block": "{runbook} is quiet for {time} more: {reason}",
    "incident_row": "{id}  {tier}  {cause}{unsettled}  since {opened_at}",
    "unsettled": " (not settled)",
    "alarm_row": "{id}  {tier}  {state}  {key}: {text}{marks}",
    "run_row": "{id}  {runbook}  {state}{step}{reason}",
    "equipment_row": "{name}  {kind}  {tier}",
    "point_row": "{point} = {value}{unit}{quality}",
    "ready_row": "{line}: {state}: {reason}",
    "refused_row": "{runbook} does not act: {text}",
    "head_arrangements": "Not in the normal arrangement",
    "head_blocks": "Kept quiet",
    "head_incidents": "Incidents",
    "head_alarms": "Alarms",
    "head_runs": "Runs",
    "head_refusals": "Refusals",
    "head_readiness": "Standing by",
    "head_equipment": "Equipment",
    "all_quiet": "No incident and no alarm.",
    # explanations
    "incident": "Incident {id}: {tier}, {state}",
    "incident_cause": "It comes from {cause}.",
    "incident_unsettled": "The cause is not settled: {cause}. Nothing acts on a cause that is not settled.",
    "incident_late": "This was named for want of a better one: nothing else explains it.",
    "incident_marks": "Marked: {marks}.",
    "incident_opened": "Opened {opened_at}{duration}.",
    "incident_ended": "Ended {ended_at}.",
    "incident_merged": "It turned out to be part of {into}.",
    "for_time": " ({time} ago)",
    "head_named": "Why this cause: it predicts",
    "head_not_taken": "Why no other",
    "not_taken": "{text}: {reason}",
    "predicted": "{alarms}: seen {seen}",
    "head_evidence": "What was seen when the cause was named",
    "head_facts": "What is seen now",
    "fact": "{point} = {value}{unit}{quality}{age}{source}",
    "head_runbooks": "What the runbooks did",
    "book_ran": "{runbook}: run {id} is {state}{reason}",
    "book_refused": "{runbook} did not act: {text} ({code}, {at})",
    "book_now": "{runbook} now: {text}",
    "book_idle": "{runbook} had nothing to do: {text}",
    "alarm": "Alarm {id}{key}: {tier}, {state}",
    "alarm_since": "It stands since {since}.",
    "alarm_acts": "It may move a runbook.",
    "alarm_warns": "It only warns; no runbook starts on it.",
    "alarm_blind": "It became active while it could not be seen: it warns, and permits no act until it is seen bad.",
    "alarm_unconfirmed": "It has not been seen since the agent started.",
    "alarm_older": "It is older than the agent's start.",
    "alarm_in": "It belongs to incident {incidents}.",
    "rung": "{tier}: {state}, seen {seen}; enters after {on} of [{enter}], leaves after {off} of [{leave}]{next}",
    "rung_next": "; {next} in {time}",
    "head_rungs": "Limits",
    "head_faults": "What hides it",
    "fault": "{point}: {fault}",
    "run": "Run {id} of {runbook}: {state}{reason}",
    "run_for": "It was opened {opened_at} for incident {incident}{cause}.",
    "run_ended": "It ended {ended_at}.",
    "run_deadline": "It stands in this state for {time} more at most.",
    "run_paused": "A hold keeps it where it stands: nothing more is done and nothing is undone.",
    "run_choices": "A person may choose: {choices}.",
    "run_command": "Its next command does not leave yet: {text}",
    "run_restarted": "The agent was restarted in the middle of it.",
    "head_steps": "Steps",
    "step": "{number}. {verb} {wanted}: {progress}; proof within {within}: {proof}",
    "runbook": "Runbook {id}: mode {mode}, from {leaves} to {enters}",
    "runbook_answer": "Asked now: {text}",
    "may_act": "it would act",
    "budget": "Budget: {spent} of {budget} runs within {time} used.",
    "no_budget": "Budget: no limit.",
    "failback": "Way home: {how}, after {good} of good, at most {per_day} a day.",
    "automatic": "automatic",
    "by_hand": "a person decides",
    "head_guards": "Guards",
    "guard_for": "{guard}: nothing against it",
    "guard_against": "{guard}: {against}",
    "head_proof": "What would have to prove {enters}",
    # words
    "unknown": "unknown",
    "true": "yes",
    "false": "no",
    "suspect": " (suspect)",
    "hidden": " ({fault})",
    "age": ", {age} old",
    "source": ", by {source}",
    "holds": "holds",
    "not_holds": "does not hold",
    "unseen": "cannot be seen",
    "unconfirmed": "unconfirmed",
    "older": "older than our start",
}

UNITS: Final = {"": "", "bool": "", "state": "", "ratio": "", "percent": " %", "volt": " V", "hertz": " Hz"}
UNITS_MORE: Final = {"celsius": " °C", "s": " s", "bytes": " B", "watt": " W", "ampere": " A"}
QUIET_POINTS: Final = ("good",)


def say(key: str, **words: object) -> str:
    """Return the sentence *key* with *words* in it."""
    return TEXTS[key].format(**words)


def time_text(length_s: float | None) -> str:
    """Return a length of time as people say it: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if length_s is None:
        return say("unknown")
    whole = round(length_s)
    if whole < 120:
        return f"{length_s:.3g} s" if length_s < 10 else f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def value_text(value: object, unit: str = "") -> str:
    """Return a value as people read it; null is unknown."""
    if value is None:
        return say("unknown")
    if isinstance(value, bool):
        return say("true" if value else "false")
    if isinstance(value, int | float):
        if unit == "ratio":
            return f"{value * 100:.4g} %"
        text = f"{value:.6g}"
        return text + (UNITS | UNITS_MORE).get(unit, f" {unit}")
    return str(value)


def section(head: str, rows: Iterable[str]) -> list[str]:
    """Return a headed list, nothing when it has no rows."""
    found = [f"  {row}" for row in rows]
    return ["", head, *found] if found else []


# ---------------------------------------------------------------- status


def status_text(status: Plain) -> str:
    """Return `status` (docs/status-json.md) as text."""
    lines = [] if status["agent"]["running"] else [say("not_running"), ""]
    site = status["site"]
    lines.append(say("site", name=site["name"] or site["id"], id=site["id"], tier=site["tier"].upper()))
    if site["cause"]:
        lines.append(say("cause", cause=site["cause"]))
    lines.append(say("mode", mode=status["mode"]))
    lines.append(hold_text(status["hold"]) if status["hold"] else "")
    acting = status["acting"]
    lines.append(say("acting") if acting["allowed"] else say("not_acting", why=acting["why_not"]))
    lines += journal_text(status["journal"], running=status["agent"]["running"])
    lines = [line for place, line in enumerate(lines) if line or place == 1]
    lines += section(say("head_arrangements"), map(arrangement_text, status["arrangements"]))
    lines += section(say("head_blocks"), map(block_text, status["blocks"]))
    lines += section(say("head_incidents"), map(incident_row, status["incidents"]))
    lines += section(say("head_alarms"), map(alarm_row, status["alarms"]))
    lines += section(say("head_runs"), map(run_row, status["runs"]))
    lines += section(say("head_refusals"), refusal_rows(status["runbooks"]))
    ready = status["readiness"].items()
    lines += section(
        say("head_readiness"), (say("ready_row", line=n, state=r["state"], reason=r["reason"]) for n, r in ready)
    )
    lines += section(say("head_equipment"), equipment_rows(status["equipment"]))
    if not status["incidents"] and not status["alarms"]:
        lines += ["", say("all_quiet")]
    return "\n".join(lines) + "\n"


def hold_text(hold: Plain) -> str:
    """Return the hold in one sentence."""
    return say(
        "hold",
        owner=hold["owner"],
        since=hold["since"],
        reason=hold["reason"] or say("no_reason"),
        finish=say("hold_finish") if hold["let_finish"] else "",
        end=say("hold_end", time=time_text(hold["ends_in_s"])) if hold["ends_in_s"] is not None else "",
    )


def journal_text(journal: Plain, *, running: bool) -> list[str]:
    """Return how the journal stands."""
    lines: list[str] = []
    if journal["durable"] or not running:
        lines.append(say("journal", durable=journal["durable_sequence"]))
    else:
        lines.append(
            say(
                "journal_behind",
                reason=journal["reason"] or say("unknown"),
                last=journal["last_sequence"],
                durable=journal["durable_sequence"],
            )
        )
    if journal["cut"]:
        lines.append(say("journal_cut", cut=journal["cut"]))
    if journal["safe_reason"]:
        lines.append(say("journal_safe", reason=journal["safe_reason"]))
    return lines


def arrangement_text(one: Plain) -> str:
    """Return one arrangement."""
    words = {key: one[key] for key in ("name", "line", "since", "run", "runbook")}
    return say("arrangement", time=time_text(one["for_s"]), **words)


def block_text(block: Plain) -> str:
    """Return one lockout or block."""
    return say(block["kind"], runbook=block["runbook"], reason=block["reason"], time=time_text(block["left_s"]))


def incident_row(one: Plain) -> str:
    """Return one incident as a row."""
    unsettled = "" if one["settled"] else say("unsettled")
    words = {key: one[key] for key in ("id", "tier", "cause", "opened_at")}
    return say("incident_row", unsettled=unsettled, **words)


def alarm_row(one: Plain) -> str:
    """Return one alarm as a row."""
    marks = [say(mark) for mark, key in (("unconfirmed", "unconfirmed"), ("older", "older_than_start")) if one[key]]
    return say(
        "alarm_row",
        id=one["id"] or "-",
        tier=one["tier"],
        state=one["state"],
        key=one["key"],
        text=one["text"] or "",
        marks=f" ({', '.join(marks)})" if marks else "",
    )


def run_row(one: Plain) -> str:
    """Return one run as a row."""
    step = f" step {one['step'] + 1} of {one['steps']}" if one["steps"] and one["ended_at"] is None else ""
    reason = f": {one['reason']}" if one["reason"] else ""
    return say("run_row", id=one["id"], runbook=one["runbook"], state=one["state"], step=step, reason=reason)


def refusal_rows(runbooks: Plain) -> Iterable[str]:
    """Give the recorded reason of each runbook that did not act."""
    for name, book in runbooks.items():
        if book["refusal"] is not None:
            yield say("refused_row", runbook=name, text=book["refusal"]["text"])


def equipment_rows(equipment: Plain) -> Iterable[str]:
    """Give each piece of equipment with its points; those never seen are left out where others are seen."""
    for name, one in equipment.items():
        yield say("equipment_row", name=name, kind=one["kind"] or "", tier=one["tier"])
        for point, seen in one["points"].items():
            if seen["fault"] != "not_seen":
                yield "  " + point_row(point, seen)


def point_row(point: str, seen: Plain) -> str:
    """Return one point as a row."""
    quality = quality_text(seen["quality"], seen["fault"])
    return say("point_row", point=point, value=value_text(seen["value"], seen["unit"]), unit="", quality=quality)


def quality_text(quality: str, fault: str | None = None) -> str:
    """Return a remark on a value that is not good."""
    if quality == "suspect":
        return say("hidden", fault=fault) if fault else say("suspect")
    return say("hidden", fault=fault) if quality == "unknown" and fault else ""


def fact_row(fact: Plain) -> str:
    """Return one fact as a row."""
    return say(
        "fact",
        point=fact["point"],
        value=value_text(fact["value"], fact.get("unit") or ""),
        unit="",
        quality=quality_text(fact["quality"]),
        age=say("age", age=time_text(fact["age_s"])) if fact["age_s"] is not None else "",
        source=say("source", source=fact["source"]) if fact["source"] else "",
    )
