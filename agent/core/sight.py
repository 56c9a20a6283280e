"""Folding events into what we see: last observations, raw verdicts, since when something is bad or good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.core.alarm import AlarmSpec
from agent.core.judge import Condition, Points, Verdict, verdict
from agent.core.model import (
    AlarmKey,
    At,
    CommandEnded,
    Event,
    JournalHealth,
    Observation,
    Observed,
    PointId,
    Quality,
    Started,
    Ticked,
    TimeGap,
)
from agent.core.site import Site
from agent.core.state import State, Volatile
from agent.core.topology import Raw


def see(site: Site, state: State, event: Event, now: At) -> State:
    """Return *state* with *event* folded into its volatile part."""
    guard_until_s = state.volatile.guard_until_s if state.volatile.guard_until_s > now.boot_s else 0.0
    volatile = state.volatile
    if volatile.touched or guard_until_s != volatile.guard_until_s:
        volatile = replace(volatile, touched=(), guard_until_s=guard_until_s)
    match event:
        case Observed():
            volatile = observe(site, volatile, event.observations, now.boot_s)
        case Ticked():
            volatile = look_over(site, volatile, site.alarms, now.boot_s)
        case Started():
            same = state.durable.boot_id == now.boot_id
            volatile = replace(
                Volatile(blind_before=now.boot_s, started_s=now.boot_s),
                guard_until_s=now.boot_s + (0.0 if same else site.boot_guard_s),
                safe_reason=None if event.journal_intact else event.why_not,
            )
        case TimeGap():
            volatile = replace(volatile, raw={}, seen_good=frozenset(), blind_before=now.boot_s)
        case JournalHealth():
            volatile = replace(volatile, journal_durable=event.durable, journal_reason=event.reason)
        case CommandEnded():
            keys = {run.key for run in state.durable.open_runs()}  # of other runs nobody asks any more
            known = {key: outcome for key, outcome in volatile.outcomes.items() if key in keys}
            volatile = replace(volatile, outcomes={**known, event.key: event.outcome})
        case _:
            pass
    return replace(state, volatile=volatile)


def observe(site: Site, old: Volatile, observations: Iterable[Observation], now_s: float) -> Volatile:
    """Return what we see after *observations*; one that was asked before what we have is not taken."""
    seen = dict(old.seen)
    last_good = dict(old.last_good)
    touched: dict[AlarmKey, None] = {}
    for observation in observations:
        before = seen.get(observation.point)
        if observation.point not in site.points or (before is not None and before.asked_at > observation.asked_at):
            continue
        seen[observation.point] = observation
        if observation.quality is Quality.GOOD:
            last_good[observation.point] = observation.value
        touched.update(dict.fromkeys(site.alarms_of.get(observation.point, ())))
    points = Points(seen, last_good, site.points, old.blind_before)
    return with_sight(site, old, points, touched, now_s)


def look_over(site: Site, old: Volatile, keys: Iterable[AlarmKey], now_s: float) -> Volatile:
    """Return *old* with the raw verdicts of *keys* made anew."""
    return with_sight(site, old, Points(old.seen, old.last_good, site.points, old.blind_before), keys, now_s)


def with_sight(site: Site, old: Volatile, points: Points, keys: Iterable[AlarmKey], now_s: float) -> Volatile:
    """Return *old* with what is seen in *points*, and the raw verdicts of *keys* made anew by that."""
    raw = dict(old.raw)
    good: set[AlarmKey] = set()
    touched = tuple(keys)
    for key in touched:
        raw[key] = judged(site.alarms[key], raw.get(key), points, now_s)
        if raw[key].good_since is not None:
            good.add(key)
    seen_good = old.seen_good | good if not good <= old.seen_good else old.seen_good
    return replace(old, seen=points.seen, last_good=points.last_good, raw=raw, touched=touched, seen_good=seen_good)


def judged(spec: AlarmSpec, before: Raw | None, points: Points, now_s: float) -> Raw:
    """Return what the points say of one alarm now."""
    rungs = {str(rung.tier): verdict(rung.enter, rung.leave, points, now_s) for rung in spec.rungs}
    looked_at = [o for point in spec.points() if (o := points.seen.get(point)) is not None]
    asked_at = min((o.asked_at for o in looked_at), default=0.0)
    good = all(v is Verdict.GOOD for v in rungs.values())
    good_since = None
    if good:
        good_since = before.good_since if before is not None and before.good_since is not None else asked_at
    return Raw(rungs, bad_since(spec, rungs, before, points, asked_at), asked_at, good_since)


def bad_since(
    spec: AlarmSpec, rungs: dict[str, Verdict], before: Raw | None, points: Points, asked_at: float
) -> float | None:
    """
    Return since when the alarm's condition has held: by the probe's own history where it keeps one, else since the first
    observation that showed it.
    """
    if Verdict.BAD not in rungs.values():
        return None
    told = [s for c in entered(spec, rungs) if (s := since_told(points, c.point)) is not None]
    if told:
        return max(told)
    return before.since if before is not None and before.since is not None else asked_at


def entered(spec: AlarmSpec, rungs: dict[str, Verdict]) -> tuple[Condition, ...]:
    """Return the enter conditions of the rungs that are bad."""
    return tuple(c for rung in spec.rungs if rungs[str(rung.tier)] is Verdict.BAD for c in rung.enter)


def since_told(points: Points, point: PointId) -> float | None:
    """Return what the probe itself says about since when."""
    observation = points.seen.get(point)
    return observation.since if observation is not None else None
