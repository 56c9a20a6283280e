"""
Putting another site in the place of the one before while everything goes on: what forbids it, and what becomes of state.

What is durable stays. Alarms that the new site does not have are ended by a record; delays of alarms that have changed
start anew. What was seen of equipment that has gone, or that is looked at otherwise, is forgotten: it was another thing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from agent.core import alarm as alarms
from agent.core.engine import Stepped, drop_lost_alarms, effects, run_pass
from agent.core.model import AlarmKey, At, PointId, Ticked
from agent.core.records import ConfigRefused, DelaysRebased, SiteReloaded
from agent.core.run import Run
from agent.core.runbook import Runbook
from agent.core.sight import see
from agent.core.site import Site
from agent.core.state import Durable, State, Volatile
from agent.core.work import Work

CURE: Final = "wait for its end (changeover status) or end it (changeover runbook), then reload again"


@dataclass(frozen=True, slots=True)
class SiteChange:
    """What is looked at otherwise than before: lines whose keys differ, and points that were those of other things."""

    lines: frozenset[str]
    points: frozenset[PointId]


def why_not_reload(durable: Durable, old: Site, new: Site, changed_lines: Collection[str]) -> tuple[str, ...]:
    """
    Return why *new* may not take the place of *old* now, with the cure; nothing when it may.

    An open run goes on by the runbook that it began with, on the lines that it began with (*changed_lines* names those
    whose keys differ). A held run is in a person's hands already and forbids nothing.
    """
    reasons = []
    for run in durable.open_runs():
        before, after = old.runbooks.get(run.runbook), new.runbooks.get(run.runbook)
        change = run_change(before, after, changed_lines)
        if change is not None:
            reasons.append(f"{in_words(run)} is {run.state}, and {change}; {CURE}")
    return tuple(reasons)


def in_words(run: Run) -> str:
    """Return a run by its id and its runbook."""
    return f"run {run.id} of runbook {run.runbook}"


def run_change(before: Runbook | None, after: Runbook | None, changed_lines: Collection[str]) -> str | None:
    """Return what the new site changes under an open run of runbook *before*, None when nothing that concerns it."""
    if before is None:  # lost in an earlier life of the agent, and held at its start
        return None
    if after is None:
        return "the new site file no longer has that runbook"
    if what_runs(before) != what_runs(after):
        return "the new site file has another script or other lines for it"
    touched = [line for line in (before.leaves, before.enters) if line in changed_lines]
    return f"the new site file has other keys for {' and '.join(touched)}" if touched else None


def what_runs(book: Runbook) -> tuple[object, ...]:
    """Return what an open run of *book* goes by; its mode, limits and failback are asked only before the next one."""
    return book.digest, book.steps, book.lock, book.arrangement


def reloaded(old: Site, new: Site, state: State, record: SiteReloaded, forget: Collection[PointId], now: At) -> Stepped:
    """
    Return *state* under *new*, with *record* and all that follows from it; *forget* names points that were other things.

    Ask `why_not_reload` first.
    """
    changed = {key for key, spec in old.alarms.items() if key in new.alarms and new.alarms[key] != spec}
    known = replace(state, volatile=forgetting(old, new, state.volatile, forget, changed))
    work = Work(new, see(new, known, Ticked(), now), now)
    work.emit(record)
    drop_lost_alarms(work)
    rebase_changed(work, changed)
    run_pass(work, Ticked())
    records = tuple(work.records)
    return Stepped(work.state, records, tuple(effect for one in records for effect in effects(one)))


def refused(site: Site, state: State, record: ConfigRefused, now: At) -> Stepped:
    """Return *state* with *record* of a site file that was not taken."""
    work = Work(site, state, now)
    work.emit(record)
    return Stepped(work.state, tuple(work.records), ())


def forgetting(
    old: Site, new: Site, volatile: Volatile, forget: Collection[PointId], changed: Collection[AlarmKey]
) -> Volatile:
    """Return what is still known under *new*: nothing of points in *forget* or gone, no verdict by a limit of before."""
    gone = set(forget) | (volatile.seen.keys() - new.points.keys())
    judged = {key for key, spec in old.alarms.items() if key not in new.alarms or gone & spec.points()} | set(changed)
    return replace(
        volatile,
        seen={point: seen for point, seen in volatile.seen.items() if point not in gone},
        last_good={point: value for point, value in volatile.last_good.items() if point not in gone},
        raw={key: raw for key, raw in volatile.raw.items() if key not in judged},
        seen_good=volatile.seen_good - judged,
    )


def rebase_changed(work: Work, changed: Collection[AlarmKey]) -> None:
    """Start the running delays of *changed* alarms anew: they were counted by delays that are no longer in force."""
    waiting = {
        key: alarms.rebase(work.site.alarms[AlarmKey(key)], alarm, work.now_s)
        for key, alarm in work.durable.alarms.items()
        if AlarmKey(key) in changed and alarm.deadline_s() is not None
    }
    if waiting:
        work.emit(DelaysRebased(waiting))
