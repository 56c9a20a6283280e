"""
Policy: which runbook starts, or why it does not.

Each guard is one row: a name, and a question that answers with a reason or with nothing. Guards are asked in order, before
a run and again before each of its commands; the first reason is recorded with the facts that it was decided on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.core.alarm import AlarmState
from agent.core.incident import Incident
from agent.core.judge import Verdict, holds
from agent.core.model import AlarmKey, Evidence, Fact, Mode, Observation, PointId, Quality
from agent.core.records import ArrangementLost, Locked, Refused, RunOpened
from agent.core.run import APPROVAL_S, WAITING_S
from agent.core.runbook import Runbook
from agent.core.site import LineFacts
from agent.core.work import Work
from agent.errors import ConfigError, Problem

COMMON_CAUSE_S: Final = 10.0  # two lines that fail within this time failed together
# Headquarters is suspected unless the other line has reached it for so long without a loss, and with less loss than this.
HQ_CLEAN_S: Final = 2.0
HQ_CLEAN_LOSS: Final = 0.05
STANDBY_BAD_RETURN_S: Final = 60.0  # when the standby fails, a primary that is good for this long is taken back at once
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class SiteQuestion:
    """May anything act on this site now?"""

    work: Work


@dataclass(frozen=True, slots=True)
class Question(SiteQuestion):
    """May this runbook act now, for this incident? `ordered`: a person wants it, whatever the cause."""

    book: Runbook
    incident: Incident | None
    ordered: bool = False

    def line(self, name: str) -> LineFacts:
        """Return the facts of line *name*."""
        facts = self.work.site.equipment[name].line
        if facts is None:
            raise ConfigError("site", (Problem(0, 0, f"equipment.{name}", "a runbook needs it to be a line"),))
        return facts

    def hard(self, name: str) -> list[AlarmKey]:
        """Return the alarms of line *name* that may move a runbook."""
        alarms = self.work.site.alarms
        return [key for key, spec in alarms.items() if spec.equipment == name and spec.acts]

    def standing(self, name: str) -> list[AlarmKey]:
        """Return those of `hard` that are active now."""
        found = self.work.durable.alarms
        return [k for k in self.hard(name) if k in found and found[k].state() is AlarmState.ACTIVE and found[k].id]

    def target_points(self) -> tuple[PointId, ...]:
        """Return the points that prove the line that is to carry the site."""
        line = self.book.enters
        return tuple(PointId(f"{line}.{rung}.lost_in_row") for rung in proving_rungs(self.line(line)))

    def seen(self, point: str) -> Observation | None:
        """Return the fresh, good observation of *point*, no older than evidence may be."""
        observation = self.work.points.fresh(PointId(point), self.work.now_s, self.work.site.evidence_max_age_s)
        return observation if observation is not None and observation.quality is Quality.GOOD else None

    def loss(self, line: str) -> float | None:
        """Return the worst loss ratio of the far rungs of *line*, None when one cannot be seen."""
        worst_ratio = 0.0
        for rung in proving_rungs(self.line(line)):
            observation = self.seen(f"{line}.{rung}.loss_ratio")
            if observation is None or not isinstance(observation.value, int | float):
                return None
            worst_ratio = max(worst_ratio, float(observation.value))
        return worst_ratio


Reason = str | None
Guard = tuple[str, Callable[[Question], Reason]]
SiteGuard = tuple[str, Callable[[SiteQuestion], Reason]]  # one that looks at no runbook


def proving_rungs(line: LineFacts) -> tuple[str, ...]:
    """Return the rungs that prove that a line reaches headquarters: the far ones, another site only if alone."""
    return tuple(rung for rung in line.far() if rung != "second_site") or line.far()


# ---------------------------------------------------------------- may anything act at all?


def held(q: SiteQuestion) -> Reason:
    """Return the hold, if there is one."""
    hold = q.work.durable.hold
    return f"on hold by {hold.owner}: {hold.reason}" if hold is not None else None


def safe_mode(q: SiteQuestion) -> Reason:
    """Return why the agent is in safe mode, if it is."""
    reason = q.work.volatile.safe_reason
    return f"safe mode: {reason}" if reason is not None else None


def journal_not_durable(q: SiteQuestion) -> Reason:
    """Return why nothing can be remembered, if so."""
    v = q.work.volatile
    return None if v.journal_durable else f"the journal is not durable: {v.journal_reason}"


def boot_guard(q: SiteQuestion) -> Reason:
    """Return how long the agent still only looks after its start."""
    left_s = q.work.volatile.guard_until_s - q.work.now_s
    return f"started a moment ago: only looking for {left_s:.0f} s more" if left_s > 0 else None


def stopped(q: SiteQuestion) -> Reason:
    """Return the hold that stops a run which has begun: one that lets it finish does not."""
    hold = q.work.durable.hold
    return held(q) if hold is not None and not hold.let_finish else None


AGENT_GUARDS: tuple[SiteGuard, ...] = (
    ("safe_mode", safe_mode),
    ("journal_not_durable", journal_not_durable),
    ("boot_guard", boot_guard),
)
SITE_GUARDS: tuple[SiteGuard, ...] = (("held", held), *AGENT_GUARDS)
COMMAND_GUARDS: tuple[SiteGuard, ...] = (("held", stopped), *AGENT_GUARDS)


# ---------------------------------------------------------------- a swap


def cause_elsewhere(q: Question) -> Reason:
    """Return the cause when it is not the line, so that swapping would not help."""
    if q.incident is None or q.incident.ended_at is not None:
        return "its incident is over"
    cause = q.incident.cause
    if not cause.settled:
        return f"the cause is not settled ({', '.join(cause.candidates) or 'nothing explains it'})"
    if cause.kind != q.book.cause or q.book.leaves not in cause.equipment:
        return f"the cause is {cause.text}, not {q.book.leaves}: swapping would not help"
    return None


def not_seen_bad(q: Question) -> Reason:
    """Return that nobody has seen the line bad since start, if so."""
    found = q.work.durable.alarms
    for key in q.standing(q.book.leaves):
        entry = q.work.volatile.raw.get(key)
        seen = entry is not None and Verdict.BAD in entry.rungs.values()
        if seen and not found[key].blind and not found[key].unconfirmed:
            return None
    return f"{q.book.leaves} is not seen bad right now"


def failed_together(q: Question) -> Reason:
    """Return that both lines failed within ten seconds: what they share failed, not they."""
    now_s = q.work.now_s
    for key in q.hard(q.book.enters):
        for at in q.work.durable.activations.get(key, ()):
            if 0 <= now_s - at <= COMMON_CAUSE_S:
                return f"{q.book.enters} failed within {COMMON_CAUSE_S:.0f} s too: a common cause is likely"
    return None


def target_not_proven(q: Question) -> Reason:
    """Return why the other line is not proven good, by evidence newer than the first sign of trouble."""
    line = q.book.enters
    if q.standing(line):
        return f"{line} is bad too"
    points = q.target_points()
    if not points:
        return f"{line} has no far target that could prove it"
    first = trouble_since(q)
    for point in points:
        observation = q.seen(point)
        if observation is None:
            return f"{point} cannot be seen"
        if first is not None and observation.asked_at <= first:
            return f"{point} has not been asked since the trouble began"
        if observation.value != 0:
            return f"{point} has not been answered"
    return None


def target_not_better(q: Question) -> Reason:
    """Return that the other line loses as much as this one, if so."""
    theirs, ours = q.loss(q.book.enters), q.loss(q.book.leaves)
    if theirs is None:
        return f"the loss on {q.book.enters} cannot be seen"
    dead = any(not key.endswith("_bad") for key in q.standing(q.book.leaves))
    here = 1.0 if dead or ours is None else ours
    if theirs >= q.line(q.book.enters).bad_loss_ratio or theirs >= here:
        return f"{q.book.enters} loses {theirs:.0%}, {q.book.leaves} {here:.0%}: not better"
    return None


def target_lossy(q: Question) -> Reason:
    """Return that the other line loses more than a good line does, if so."""
    loss = q.loss(q.book.enters)
    if loss is None:
        return f"the loss on {q.book.enters} cannot be seen"
    return f"{q.book.enters} loses {loss:.0%}" if loss >= q.line(q.book.enters).bad_loss_ratio else None


def headquarters_suspected(q: Question) -> Reason:
    """
    Return that headquarters itself may be the cause: only it is bad over this line, and the other does not reach it
    cleanly. A lossy headquarters is "dead" by chance on one line first, while the other's newest probe was answered.
    """
    if not all(key.startswith(f"{q.book.leaves}.hq_") for key in q.standing(q.book.leaves)):
        return None
    line = q.book.enters
    entry = q.work.volatile.raw.get(AlarmKey(f"{line}.hq_dead"))
    if entry is None or entry.good_since is None or q.work.now_s - entry.good_since < HQ_CLEAN_S:
        return f"only headquarters is bad, and {line} has not reached it for {HQ_CLEAN_S:.0f} s without a loss"
    loss = q.loss(line)
    if loss is None or loss >= HQ_CLEAN_LOSS:
        return f"only headquarters is bad, and {line} does not reach it without loss either"
    return None


def trouble_since(q: Question) -> float | None:
    """Return the first sign of the present trouble of the line that is to be left, in boot seconds."""
    raw = q.work.volatile.raw
    since = [e.since for k in q.standing(q.book.leaves) if (e := raw.get(k)) is not None and e.since is not None]
    return min(since, default=None)


# ---------------------------------------------------------------- a return


def return_by_hand(q: Question) -> Reason:
    """Return that a person decides about the return, if so: also from a line that a person chose, while it is good."""
    arrangement = q.work.durable.arrangements.get(q.book.arrangement)
    if arrangement is not None and arrangement.asked_by is not None and not q.standing(q.book.leaves):
        return f"{arrangement.asked_by} brought the site to {q.book.leaves} and decides about the return"
    failback = q.book.failback
    return None if failback is not None and failback.automatic else "a person decides about the return"


def returned_often(q: Question) -> Reason:
    """Return that the day's automatic returns are used up."""
    failback = q.book.failback
    count = used(q, DAY_S)
    if failback is None:
        return None
    return f"{count} returns in 24 h: a person decides about the next" if count >= failback.per_day else None


def home_not_good_long_enough(q: Question) -> Reason:
    """Return for how long the primary has been good, while that is not long enough."""
    failback = q.book.failback
    line = q.book.enters
    if failback is None:
        return "there is no way back in this runbook"
    standing = q.standing(line)
    if standing:
        return f"{line} is still bad: {standing[0]}"
    need_s = min(failback.good_for_s, STANDBY_BAD_RETURN_S) if q.standing(q.book.leaves) else failback.good_for_s
    for key in q.hard(line):
        entry = q.work.volatile.raw.get(key)
        if entry is None or entry.good_since is None:
            return f"{line} is not seen good: {key}"
        good_s = q.work.now_s - entry.good_since
        if good_s < need_s:
            return f"{line} has been good for {good_s:.0f} s of {need_s:.0f} s"
    return None


# ---------------------------------------------------------------- both


def locked(q: Question) -> Reason:
    """Return the lockout, if a person must reset this runbook first."""
    lockout = q.work.durable.lockouts.get(family(q.book))
    return f"locked until a person resets it: {lockout.reason}" if lockout is not None else None


def blocked(q: Question) -> Reason:
    """Return the block, while this runbook stays quiet. A block never stops the way home."""
    block = q.work.durable.blocks.get(q.book.name)
    if block is None:
        return None
    left_s = block.for_s - q.work.durable.elapsed_s(block.since, q.work.now)
    return f"quiet for {left_s:.0f} s more: {block.reason}" if left_s > 0 else None


def budget_spent(q: Question) -> Reason:
    """Return that the budget of runs is used up."""
    limits = q.book.limits
    if limits.budget is None:
        return None
    count = used(q, limits.budget_s)
    return f"{count} runs in {limits.budget_s / 60:.0f} min" if count >= limits.budget else None


def other_run(q: Question) -> Reason:
    """Return the run that holds the lock."""
    for run in q.work.durable.open_runs():
        if q.work.site.runbooks[run.runbook].lock == q.book.lock:
            return f"run {run.id} of {run.runbook} is not finished"
    return None


def used(q: Question, within_s: float) -> int:
    """Return how many runs of this runbook were spent within the last *within_s* seconds."""
    durable = q.work.durable
    return sum(1 for at in durable.spent.get(q.book.name, {}).values() if durable.elapsed_s(at, q.work.now) < within_s)


def family(book: Runbook) -> str:
    """Return the name under which a runbook and its return are locked together."""
    return book.name.removesuffix(".return")


SWAP_GUARDS: tuple[Guard, ...] = (
    ("cause_elsewhere", cause_elsewhere),
    ("not_seen_bad", not_seen_bad),
    ("failed_together", failed_together),
    ("target_not_proven", target_not_proven),
    ("target_not_better", target_not_better),
    ("headquarters_suspected", headquarters_suspected),
)
RETURN_GUARDS: tuple[Guard, ...] = (
    ("home_not_good_long_enough", home_not_good_long_enough),
    ("target_not_proven", target_not_proven),
)
# A person who orders a run answers for its cause; that the way there is good is asked all the same.
ORDER_GUARDS: tuple[Guard, ...] = (("target_not_proven", target_not_proven), ("target_lossy", target_lossy))
START_GUARDS: tuple[Guard, ...] = (("locked", locked), ("blocked", blocked), ("other_run", other_run))


def why_not_acting(work: Work) -> tuple[str, str] | None:
    """Return (code, reason) when nothing at all may act on this site, else None."""
    for code, guard in SITE_GUARDS:
        reason = guard(SiteQuestion(work))
        if reason is not None:
            return code, reason
    return None


def why_not_command(q: Question) -> tuple[str, str] | None:
    """Return (code, reason) when the next command of this runbook may not leave, else None."""
    own = ORDER_GUARDS if q.ordered else RETURN_GUARDS if q.book.is_return else SWAP_GUARDS
    return first_reason(q, COMMAND_GUARDS + own)


def why_not_start(q: Question) -> tuple[str, str] | None:
    """Return (code, reason) when this runbook may not start, else None."""
    if q.book.is_return:
        extra: tuple[Guard, ...] = (("return_by_hand", return_by_hand), ("returned_often", returned_often))
        return first_reason(q, START_GUARDS + RETURN_GUARDS + extra + SITE_GUARDS)
    return first_reason(q, SWAP_GUARDS + SITE_GUARDS + START_GUARDS + (("budget_spent", budget_spent),))


def first_reason(q: Question, guards: tuple[Guard, ...]) -> tuple[str, str] | None:
    """Return the first reason that *guards* give, with its code."""
    for code, guard in guards:
        reason = guard(q)
        if reason is not None:
            return code, reason
    return None


def evidence(q: Question) -> tuple[Evidence, ...]:
    """Return what a command of this runbook rests on, checked for age again at the moment it leaves."""
    return tuple(Evidence(point, q.work.site.evidence_max_age_s) for point in q.target_points())


# ---------------------------------------------------------------- deciding


def drop_lost_arrangements(work: Work) -> None:
    """
    End an arrangement that the plant contradicts while no run is moving it: a reboot or a hand has put back the routes.

    It is lost when traffic is seen to go another way than its last step has proven, although the line that it is on is
    seen good. The runbook is then asked anew, with all its guards.
    """
    for book in work.site.runbooks.values():
        if book.is_return or book.arrangement not in work.durable.arrangements or not book.steps:
            continue
        question = Question(work, book, None)
        if other_run(question) is not None or not target_is_good(question):
            continue
        seen = {c: holds(c, work.points, work.now_s) for c in book.steps[-1].proof}
        wrong = [str(condition) for condition, answer in seen.items() if answer is False]
        if wrong:
            reason = f"{book.enters} is good, and yet it does not hold that {wrong[0]}"
            work.emit(ArrangementLost(book.arrangement, reason, work.facts([c.point for c in seen])))


def target_is_good(q: Question) -> bool:
    """Tell whether the line that is to carry the site answers on every rung that proves it."""
    points = q.target_points()
    return bool(points) and all((o := q.seen(point)) is not None and o.value == 0 for point in points)


def decide_runbooks(work: Work) -> None:
    """Open the runs that may open; record each new reason why one does not."""
    drop_lost_arrangements(work)
    for book in work.site.runbooks.values():
        if book.mode is Mode.OFF or any(run.runbook == book.name for run in work.durable.open_runs()):
            continue
        question = asked(work, book)
        if question is not None:
            decide_runbook(question)


def asked(work: Work, book: Runbook) -> Question | None:
    """Return the question, when there is something that *book* is for."""
    if book.is_return:
        arrangement = work.durable.arrangements.get(book.arrangement)
        return Question(work, book, work.durable.incident_now(arrangement.incident)) if arrangement else None
    if book.arrangement in work.durable.arrangements:
        return None
    standing = Question(work, book, None).standing(book.leaves)
    for incident in work.durable.open_incidents():
        if set(standing) & set(incident.alarms):
            return Question(work, book, incident)
    return None


def decide_runbook(q: Question) -> None:
    """Open a run of this runbook, or record why not."""
    refusal = why_not_start(q)
    if refusal is not None and refusal[0] == "budget_spent":
        q.work.emit(Locked(family(q.book), refusal[1], incident_id(q)))
        refusal = why_not_start(q)
    if refusal is None and q.book.mode is Mode.WATCH:
        refusal = ("watch_only", f"in mode watch: would now move the site from {q.book.leaves} to {q.book.enters}")
    if refusal is not None:
        refuse(q, *refusal)
        return
    approved = False if q.book.mode is Mode.ASK else None
    number = q.work.durable.run_no + 1
    wait_s = APPROVAL_S if approved is False else WAITING_S
    q.work.emit(
        RunOpened(
            run=f"R{number}",
            runbook=q.book.name,
            runbook_digest=q.book.digest,
            incident=incident_id(q),
            approved=approved,
            deadline_s=q.work.now_s + wait_s,
            facts=facts(q),
        )
    )


def refuse(q: Question, code: str, text: str) -> None:
    """Record a reason, once for as long as it stays the same: a text may count seconds, a cause that changed is new."""
    old = q.work.durable.refusals.get(q.book.name)
    is_same_cause = old is not None and (code != "cause_elsewhere" or old.text == text)
    if old is not None and is_same_cause and (old.code, old.incident) == (code, incident_id(q)):
        return
    look = q.target_points() if code == "target_not_proven" else ()
    q.work.emit(Refused(q.book.name, incident_id(q), code, text, facts(q), look))


def incident_id(q: Question) -> str:
    """Return the id of the incident in question, or of the one that led to the arrangement."""
    if q.incident is not None:
        return q.incident.id
    arrangement = q.work.durable.arrangements.get(q.book.arrangement)
    return arrangement.incident if arrangement is not None else ""


def facts(q: Question) -> tuple[Fact, ...]:
    """Return the facts that a decision about this runbook rests on."""
    points = list(q.target_points())
    for key in q.standing(q.book.leaves if not q.book.is_return else q.book.enters):
        points += sorted(q.work.site.alarms[key].points())
    return q.work.facts(points[:16])
