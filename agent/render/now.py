"""What stands now, as text for people."""

from __future__ import annotations

from collections.abc import Iterable

from agent.render.base import Plain, quality_text, say, section, time_text, value_text


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
    lines += reload_text(status.get("reload"))
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


def reload_text(last: Plain | None) -> list[str]:
    """Return what is to be told of the last reload: that it was refused, or what waits for the next start."""
    if last is None:
        return []
    if not last["ok"]:
        more = len(last["problems"]) - 1
        also = say("reload_more", count=more) if more > 0 else ""
        return [say("reload_refused", at=last["at"], problem=last["problems"][0], more=also)]
    return [say("reload_restart", what=what) for what in last["needs_restart"]]


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
    if one["acknowledged_by"]:
        marks.append(say("acknowledged", owner=one["acknowledged_by"]))
    if one["shelved_until"]:
        words = {"owner": one["shelved_by"], "until": one["shelved_until"], "reason": one["shelve_reason"]}
        marks.append(say("shelved", **words))
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
    return say("point_row", point=point, value=value_text(seen["value"], seen["unit"]), quality=quality)
