"""What a runbook would do now, step by step, and what its guards say: looked at only, nothing is done."""

from __future__ import annotations

from agent.core.judge import holds
from agent.core.model import At
from agent.core.people import ORDERED_GUARDS, why_not_order
from agent.core.policy import Question, asked
from agent.core.runbook import Runbook, Step
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work
from agent.views.guards import answer_now, guards_of, nothing_text, target_facts
from agent.views.parts import Plain, facts_plain, locks_of
from agent.views.why import UnknownName, condition_plain, step_plain, title


def plan(site: Site, state: State, now: At, name: str) -> Plain:
    """
    Return what runbook *name* would do if it ran now, as plain data.

    `by_itself` and `ordered` say whether it would start, by its own cause or on a person's word: {answer, code, text}.

    Raises:
        UnknownName: there is no such runbook.
    """
    book = site.runbooks.get(name)
    if book is None:
        raise UnknownName(f"there is no runbook {name}; known are {', '.join(site.runbooks) or 'none at all'}")
    work = Work(site, state, now)
    return {
        "type": "plan",
        "id": book.name,
        "title": title(book),
        "mode": str(book.mode),
        "leaves": book.leaves,
        "enters": book.enters,
        "arrangement": book.arrangement,
        "steps": [planned(work, step, place) for place, step in enumerate(book.steps)],
        "by_itself": answer_now(work, book),
        "ordered": on_order(work, book),
        "guards": all_guards(work, book),
        "facts": facts_plain(target_facts(work, book), work),
        "locks": locks_of(work, book),
    }


def on_order(work: Work, book: Runbook) -> Plain:
    """Return what *book* would answer a person who orders it now."""
    refusal = why_not_order(work, book)
    if refusal is None:
        return {"answer": "may_act", "code": None, "text": None}
    return {"answer": "refused", "code": refusal[0], "text": refusal[1]}


def planned(work: Work, step: Step, place: int) -> Plain:
    """Return one step, and what it would do by what is seen now: act, nothing (as_wanted), or unseen."""
    seen = [holds(condition, work.points, work.now_s) for condition in step.proof]
    now = "act" if False in seen else "unseen" if None in seen or not seen else "as_wanted"
    start = [condition_plain(work, condition) for condition in step.start]
    return {**step_plain(work, step, place), "start": start, "resendable": step.resendable, "now": now}


def all_guards(work: Work, book: Runbook) -> list[Plain]:
    """Return every guard with its present answer, and whether it is asked of a start by itself and of a person's order."""
    question = asked(work, book)
    q = question if question is not None else Question(work, book, None)
    by_itself, ordered = dict(guards_of(book)), dict(ORDERED_GUARDS)
    rows: list[Plain] = []
    for code, guard in {**by_itself, **ordered}.items():
        against = guard(q)
        if code == "cause_elsewhere" and question is None:
            against = nothing_text(work, book)
        rows.append({"guard": code, "against": against, "by_itself": code in by_itself, "ordered": code in ordered})
    return rows
