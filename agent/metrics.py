"""
Metrics for Prometheus, rendered from the state. Every series of the site exists from the first scrape on.

A collector asks the state, so that a metric cannot disagree with what the agent judges by; docs/metrics.md lists them
all. Text is made at most once a second, however many ask for it, and a part that fails costs its own series alone.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from agent import __version__
from agent.clock import Clock
from agent.core.judge import Verdict
from agent.core.model import SEVERITY, AlarmKey, Quality, Tier, Value
from agent.core.policy import why_not_acting
from agent.core.records import Record, RunEnded
from agent.core.run import RunState
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work
from agent.runtime.tally import PollerStats
from agent.views.parts import JournalView, blocks_plain, site_tier, split_point

RENDER_EVERY_S: Final = 1.0
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
WORD_CHARS_MAX: Final = 64
NAN: Final = float("nan")

QUALITIES: Final = {Quality.UNKNOWN: 0, Quality.SUSPECT: 1, Quality.GOOD: 2}
ENDS: Final = (RunState.DONE, RunState.UNDONE, RunState.HELD)
CAUSE_KINDS: Final = (
    *("utility", "input", "line", "provider", "hq", "service", "observer", "device"),
    "unsettled",
)
BASE_UNITS: Final = {"percent": ("ratio", 0.01)}  # unit of a point -> (base unit, factor)

A = TypeVar("A")
B = TypeVar("B")

log = logging.getLogger(__name__)


class WatchedLoop(Protocol):
    """What the exporter reads of the loop."""

    @property
    def site(self) -> Site: ...
    @property
    def state(self) -> State: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def journal_view(self) -> JournalView: ...
    @property
    def passes(self) -> int: ...
    @property
    def events(self) -> int: ...
    @property
    def last_pass_s(self) -> float: ...
    @property
    def violation(self) -> str | None: ...

    def backlog(self) -> int:
        """Return how many events wait."""
        ...

    def on_record(self, listen: Callable[[Record], None]) -> None:
        """Call *listen* with every record."""
        ...


class WatchedPoller(Protocol):
    """What the exporter reads of the poller."""

    def stats(self) -> PollerStats:
        """Return the counts since start."""
        ...


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one rendering reads: one moment of everything."""

    work: Work
    journal: JournalView
    loop: WatchedLoop
    polls: PollerStats | None
    runs_ended: Mapping[tuple[str, str], int]


Rows = Iterable[tuple[Sequence[str], float]]


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a gauge with *rows* of (label values, value)."""
    family = GaugeMetricFamily(f"changeover_{name}", text, labels=list(labels))
    for values, value in rows:
        family.add_metric(list(values), float(value))
    return family


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a counter, named without its `_total`, with *rows* of (label values, count)."""
    family = CounterMetricFamily(f"changeover_{name}", text, labels=list(labels))
    for values, value in rows:
        family.add_metric(list(values), float(value))
    return family


# ---------------------------------------------------------------- collectors


def points(scrape: Scrape) -> Iterator[Metric]:
    """Give value, quality and age of every point, and the word of those whose value is a word."""
    work = scrape.work
    values: list[tuple[Sequence[str], float]] = []
    words: list[tuple[Sequence[str], float]] = []
    qualities: list[tuple[Sequence[str], float]] = []
    ages: list[tuple[Sequence[str], float]] = []
    for point, spec in work.site.points.items():
        labels = split_point(point)
        fact = work.points.fact(point, work.now_s)
        unit, factor = BASE_UNITS.get(spec.unit, (spec.unit, 1.0))
        values.append(((*labels, unit), number(fact.value) * factor))
        qualities.append((labels, QUALITIES[fact.quality]))
        ages.append((labels, NAN if fact.age_s is None else fact.age_s))
        if spec.unit == "state":
            words.append(((*labels, word(fact.value)), 1.0))
    names = ("equipment", "point")
    yield gauge("point_value", "Value of a point in its base unit; NaN while it is unknown.", (*names, "unit"), values)
    yield gauge("point_state", "Word that a point says, as a label; empty while unknown.", (*names, "state"), words)
    yield gauge("point_quality", "Quality of a point: 0 unknown, 1 suspect, 2 good.", names, qualities)
    yield gauge("point_age_seconds", "Time since a point was asked for; NaN before the first time.", names, ages)


def number(value: Value) -> float:
    """Return *value* as a number: yes is 1, no is 0, what is no number is NaN."""
    return float(value) if isinstance(value, bool | int | float) else NAN


def word(value: Value) -> str:
    """Return what a point says as a label: short, and nothing while it says none."""
    return value[:WORD_CHARS_MAX] if isinstance(value, str) else ""


def alarms(scrape: Scrape) -> Iterator[Metric]:
    """Give the tier of every alarm of the site."""
    work = scrape.work
    keys = dict.fromkeys([*work.site.alarms, *(AlarmKey(k) for k in work.durable.alarms)])
    rows = [(split_point(key), SEVERITY[alarm_tier(work, key)]) for key in keys]
    text = "Tier of an alarm: 0 ok, 1 unknown, 2 yellow, 3 orange, 4 red."
    yield gauge("alarm_tier", text, ("equipment", "alarm"), rows)
    for name, text, found in (
        ("alarm_acknowledged", "Whether a person has taken note of an alarm.", work.durable.acknowledgements),
        ("alarm_shelved", "Whether nobody wants to hear of an alarm for now.", work.durable.shelves),
    ):
        yield gauge(name, text, ("equipment", "alarm"), [(split_point(key), float(key in found)) for key in keys])


def alarm_tier(work: Work, key: AlarmKey) -> Tier:
    """Return the tier of an alarm; unknown when it is not active and what it looks at cannot be seen."""
    alarm = work.durable.alarms.get(key)
    if alarm is not None and alarm.tier() is not Tier.OK:
        return alarm.tier()
    raw = work.volatile.raw.get(key)
    blind = raw is None or all(verdict is Verdict.UNKNOWN for verdict in raw.rungs.values())
    return Tier.UNKNOWN if blind else Tier.OK


def incidents(scrape: Scrape) -> Iterator[Metric]:
    """Give the open incidents by kind of cause, each by itself, and the tier of the site."""
    work = scrape.work
    found = work.durable.open_incidents()
    counts = Counter(incident.cause.kind for incident in found)
    kinds = dict.fromkeys([*CAUSE_KINDS, *counts])
    yield gauge("incident_open", "Open incidents, by kind of cause.", ("kind",), (((k,), counts[k]) for k in kinds))
    rows = [((i.id, i.cause.kind, i.cause.text), SEVERITY[i.tier]) for i in found]
    yield gauge("incident_tier", "Tier of each open incident, as alarm_tier.", ("incident", "kind", "cause"), rows)
    yield gauge("site_tier", "Tier of the site, as alarm_tier.", (), [((), SEVERITY[site_tier(work)])])


def runs(scrape: Scrape) -> Iterator[Metric]:
    """Give the runs: how many ended how since start, and where the newest of each runbook stands."""
    work = scrape.work
    books = list(work.site.runbooks)
    rows = [((book, str(end)), scrape.runs_ended.get((book, str(end)), 0)) for book in books for end in ENDS]
    yield counter("runs", "Runs that ended since the agent started.", ("runbook", "end"), rows)
    newest = {run.runbook: run.state for run in work.durable.runs.values()}
    states = [((book, str(s)), float(newest.get(book) is s)) for book in books for s in RunState]
    yield gauge("run_state", "State of the newest run: 1 for the state it is in.", ("runbook", "state"), states)


def acting(scrape: Scrape) -> Iterator[Metric]:
    """Give what lasts and what keeps the agent from acting."""
    work = scrape.work
    durable, books = work.durable, work.site.runbooks.values()
    names = dict.fromkeys([*(book.arrangement for book in books), *durable.arrangements])
    rows = [((name,), float(name in durable.arrangements)) for name in names]
    yield gauge("arrangement_active", "Whether the site is in this abnormal arrangement.", ("arrangement",), rows)
    families = dict.fromkeys([*(book.name for book in books if not book.is_return), *durable.lockouts])
    rows = [((name,), float(name in durable.lockouts)) for name in families]
    yield gauge("lockout", "Whether a runbook is locked until a person resets it.", ("runbook",), rows)
    left = {b["runbook"]: b["left_s"] for b in blocks_plain(work) if b["kind"] == "block"}
    rows = [((book.name,), left.get(book.name, 0.0)) for book in books]
    yield gauge("block_remaining_seconds", "Time for which a runbook still stays quiet.", ("runbook",), rows)
    yield gauge("hold", "Whether a hold is in force.", (), [((), float(durable.hold is not None))])
    allowed = float(why_not_acting(work) is None)
    yield gauge("acting_allowed", "Whether anything may act on this site now.", (), [((), allowed)])


def journal(scrape: Scrape) -> Iterator[Metric]:
    """Give how the journal stands."""
    view = scrape.journal
    yield gauge("journal_durable", "Whether records become durable.", (), [((), float(view.durable))])
    yield gauge("journal_last_sequence", "Number of the last record that was decided.", (), [((), view.seq)])
    yield gauge("journal_durable_sequence", "Number of the last record on disk.", (), [((), view.durable_seq)])
    safe = float(view.safe_reason is not None)
    yield gauge("journal_safe_mode", "Whether what the journal remembers cannot be trusted.", (), [((), safe)])


def loop(scrape: Scrape) -> Iterator[Metric]:
    """Give how the loop runs."""
    watched, now_s = scrape.loop, scrape.work.now_s
    age_s = now_s - watched.last_pass_s if watched.passes else NAN
    yield counter("loop_passes", "Passes of the loop.", (), [((), watched.passes)])
    yield counter("loop_events", "Events that the loop has taken.", (), [((), watched.events)])
    yield gauge("loop_queue_length", "Events that wait for the loop.", (), [((), watched.backlog())])
    broken = float(watched.violation is not None)
    yield gauge("loop_invariant_violated", "Whether the agent stopped itself from doing wrong.", (), [((), broken)])
    yield gauge("loop_last_pass_age_seconds", "Time since the loop completed a pass.", (), [((), age_s)])


def polls(scrape: Scrape) -> Iterator[Metric]:
    """Give what the poller counts."""
    stats = scrape.polls
    if stats is None:
        return
    names = ("equipment",)
    counts = (
        ("poll_attempts", "Times that a probe was asked, or brought news by itself.", stats.polls),
        ("poll_faults", "Times that a probe brought nothing.", stats.faults),
        ("poll_restarts", "Crashes of a probe that keeps its own rhythm.", stats.restarts),
    )
    for name, text, found in counts:
        yield counter(name, text, names, (((equipment,), count) for equipment, count in found.items()))
    yield counter("poll_abandoned", "Polls that went on after their cancellation.", (), [((), stats.abandoned)])
    late = (("0.5", stats.lateness_p50_s), ("0.99", stats.lateness_p99_s), ("1", stats.lateness_max_s))
    rows = [((quantile,), late_s) for quantile, late_s in late]
    yield gauge("poll_lateness_seconds", "How late polls left against their schedule.", ("quantile",), rows)


Collect = Callable[[Scrape], Iterator[Metric]]
COLLECTORS: Final[Mapping[str, Collect]] = {
    "points": points,
    "alarms": alarms,
    "incidents": incidents,
    "runs": runs,
    "acting": acting,
    "journal": journal,
    "loop": loop,
    "polls": polls,
}


# ---------------------------------------------------------------- the exporter


class SiteCollector(Collector):
    """Asks every collector in turn; one that fails is told in the log, counted, and left out of this scrape."""

    def __init__(self, read: Callable[[], Scrape], collectors: Mapping[str, Collect] = COLLECTORS) -> None:
        self._read = read
        self._collectors = collectors
        self._errors = Counter(dict.fromkeys(("read", *collectors), 0))
        self._failing: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        """Give all families."""
        for scrape in self._tried("read", self._moment, None):
            for name, one in self._collectors.items():
                yield from self._tried(name, one, scrape)
        rows = (((name,), count) for name, count in self._errors.items())
        yield counter("collector_errors", "Failures while these metrics were made.", ("collector",), rows)
        yield gauge("build_info", "The version of the agent, as a label.", ("version",), [((__version__,), 1)])

    def _moment(self, _: None) -> Iterator[Scrape]:
        yield self._read()

    def _tried(self, name: str, ask: Callable[[A], Iterator[B]], about: A) -> list[B]:
        """Return all that *ask* gives about *about*, nothing when it fails; whatever fails, the scrape goes on."""
        try:
            found = list(ask(about))
        except Exception as error:
            self._errors[name] += 1
            if name not in self._failing:
                self._failing.add(name)
                log.exception("metrics.collector_failed collector=%s error=%r", name, error)
            return []
        self._failing.discard(name)
        return found

    def describe(self) -> Iterable[Metric]:
        """Give nothing: the registry must not ask the state before there is one."""
        return ()


class Exporter:
    """Renders the metrics of one agent. *poller* may be missing in what has none."""

    def __init__(self, loop: WatchedLoop, poller: WatchedPoller | None = None) -> None:
        self._loop = loop
        self._poller = poller
        self._runs_ended: Counter[tuple[str, str]] = Counter()
        self._text = b""
        self._rendered_s = -math.inf
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(SiteCollector(self._read))
        loop.on_record(self._note)

    def render(self) -> bytes:
        """Return the metrics in the text format of Prometheus, at most a second old."""
        now_s = self._loop.clock.now().boot_s
        if not 0.0 <= now_s - self._rendered_s < RENDER_EVERY_S:
            self._text = generate_latest(self._registry)
            self._rendered_s = now_s
        return self._text

    def _read(self) -> Scrape:
        loop = self._loop
        work = Work(loop.site, loop.state, loop.clock.now())
        stats = self._poller.stats() if self._poller is not None else None
        return Scrape(work, loop.journal_view, loop, stats, self._runs_ended)

    def _note(self, record: Record) -> None:
        """Count a run's end: state keeps only the newest ended runs, a counter must never go back."""
        if isinstance(record.body, RunEnded):
            run = self._loop.state.durable.runs.get(record.body.run)
            if run is not None:
                self._runs_ended[run.runbook, str(record.body.end)] += 1
