"""What the guards of a runbook say now, each in its own words: the same questions that the core asks."""

from __future__ import annotations

from typing import Final

from agent.core.model import Fact, Mode
from agent.core.policy import (
    RETURN_GUARDS,
    SITE_GUARDS,
    START_GUARDS,
    SWAP_GUARDS,
    Guard,
    Question,
    asked,
    budget_spent,
    return_by_hand,
    returned_often,
    why_not_command,
    why_not_start,
)
from agent.core.runbook import Runbook
from agent.core.work import Work
from agent.views.parts import Plain

NOTHING: Final[Plain] = {"answer": "nothing_to_do", "code": None, "text": None}


def answer_now(work: Work, book: Runbook, *, command: bool = False) -> Plain:
    """
    Return what *book* would answer now: {answer, code, text}.

    answer is nothing_to_do, running, refused (with code and text) or may_act. *command*: asked for the next command of
    an open run, not for a new run.
    """
    if book.mode is Mode.OFF and not command:
        return NOTHING | {"text": f"{book.name} is switched off"}
    running = next((run for run in work.durable.open_runs() if run.runbook == book.name), None)
    if running is not None and not command:
        return {"answer": "running", "code": None, "text": f"run {running.id} is {running.state}"}
    if command and running is not None:
        incident = work.durable.incident_now(running.incident)
        question = Question(work, book, incident) if incident is not None or book.is_return else None
    else:
        question = asked(work, book)
    if question is None:
        return NOTHING | {"text": nothing_text(work, book)}
    refusal = why_not_command(question) if command else why_not_start(question)
    if refusal is None and book.mode is Mode.WATCH:
        refusal = ("watch_only", "in mode watch: would act now, and only records that it would")
    if refusal is None:
        return {"answer": "may_act", "code": None, "text": None}
    return {"answer": "refused", "code": refusal[0], "text": refusal[1]}


def nothing_text(work: Work, book: Runbook) -> str:
    """Return why there is nothing that *book* is for."""
    if book.is_return:
        return f"the site is not in the arrangement {book.arrangement}, so there is nothing to return from"
    if book.arrangement in work.durable.arrangements:
        return f"the site is in the arrangement {book.arrangement} already"
    return f"{book.leaves} has no active alarm that moves a runbook"


def guards_now(work: Work, book: Runbook) -> list[Plain]:
    """Return every guard with its reason against a start now (null: none). Empty when there is nothing to do."""
    question = asked(work, book)
    if question is None:
        return []
    return [{"guard": code, "against": guard(question)} for code, guard in guards_of(book)]


def guards_of(book: Runbook) -> tuple[Guard, ...]:
    """Return every guard that *book* is asked before it starts by itself."""
    own: tuple[Guard, ...]
    if book.is_return:
        own = (*RETURN_GUARDS, ("return_by_hand", return_by_hand), ("returned_often", returned_often))
    else:
        own = (*SWAP_GUARDS, ("budget_spent", budget_spent))
    return (*SITE_GUARDS, *START_GUARDS, *own)


def target_facts(work: Work, book: Runbook) -> tuple[Fact, ...]:
    """Return the facts that would have to prove the line that is to carry the site."""
    target = work.site.equipment.get(book.enters)
    if target is None or target.line is None:
        return ()
    return work.facts(Question(work, book, None).target_points())
