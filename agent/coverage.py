"""
What a site file covers: what is watched and how, which single fault starts which runbook, and what is left open.

A fault is a candidate of the core's topology, so that this report and the agent's judgement never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agent.config import Config
from agent.core.model import Mode
from agent.core.runbook import Runbook
from agent.core.site import Candidate, LineFacts

MINUTE_S: Final = 60
EFFECTS: Final = {
    Mode.AUTO: "acts by itself",
    Mode.ASK: "acts when a person agrees",
    Mode.WATCH: "says what it would do",
    Mode.OFF: "is off",
}


@dataclass(frozen=True, slots=True)
class Watched:
    """One piece of equipment: how its facts come (`channel` "" for what is seen only through others)."""

    equipment: str
    kind: str
    probe: str
    channel: str
    points: int
    alarms: int

    def line(self) -> str:
        """Return it as one line of text."""
        if not self.probe:
            return f"{self.equipment} ({self.kind}): seen through what it feeds"
        return f"{self.equipment} ({self.kind}): {self.points} points by {self.channel}, {self.alarms} alarms"


@dataclass(frozen=True, slots=True)
class Fault:
    """One single fault that can be named as a cause. `runbook` and `mode` are None where it is only told."""

    id: str
    text: str
    runbook: str | None
    mode: Mode | None

    def line(self) -> str:
        """Return it as one line of text."""
        if self.runbook is None or self.mode is None:
            return f"{self.text}: told"
        return f"{self.text}: runbook {self.runbook} {EFFECTS[self.mode]}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The report. `gaps`: what is not seen or not answered, and what would help; `notes`: good to know."""

    watched: tuple[Watched, ...]
    faults: tuple[Fault, ...]
    gaps: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        parts = (
            ("watched", [one.line() for one in self.watched]),
            ("single faults that are named", list(dict.fromkeys(fault.line() for fault in self.faults))),
            ("not covered", list(self.gaps) or ["nothing that this version knows of"]),
            ("notes", list(self.notes)),
        )
        return [
            text for title, entries in parts if entries for text in (f"{title}:", *(f"  {entry}" for entry in entries))
        ]

    def data(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "watched": [
                {
                    "equipment": one.equipment,
                    "kind": one.kind,
                    "probe": one.probe or None,
                    "channel": one.channel or None,
                    "points": one.points,
                    "alarms": one.alarms,
                }
                for one in self.watched
            ],
            "faults": [
                {"id": f.id, "text": f.text, "runbook": f.runbook, "mode": None if f.mode is None else str(f.mode)}
                for f in self.faults
            ],
            "gaps": list(self.gaps),
            "notes": list(self.notes),
        }


def report(config: Config) -> Coverage:
    """Return what *config* covers."""
    return Coverage(
        watched=tuple(watched(config)),
        faults=tuple(fault(candidate, config) for candidate in config.site.candidates if not candidate.late),
        gaps=(*power_gaps(config), *line_gaps(config), *rung_gaps(config)),
        notes=(*runbook_notes(config), *config.needs),
    )


def watched(config: Config) -> list[Watched]:
    """Return each piece of equipment with how it is seen."""
    return [
        Watched(
            equipment=one.name,
            kind=one.kind,
            probe=config.probe_configs[one.name][0] if one.name in config.probe_configs else "",
            channel=config.channels.get(one.name, ""),
            points=sum(point.startswith(f"{one.name}.") for point in config.site.points),
            alarms=sum(alarm.equipment == one.name for alarm in config.site.alarms.values()),
        )
        for one in config.site.equipment.values()
    ]


def fault(candidate: Candidate, config: Config) -> Fault:
    """Return *candidate* with the runbook that it starts."""
    book = next((book for book in swaps(config) if answers(book, candidate)), None)
    return Fault(candidate.id, candidate.text, book.name if book else None, book.mode if book else None)


def swaps(config: Config) -> list[Runbook]:
    """Return the runbooks that start on a cause, without the ways home."""
    return [book for book in config.site.runbooks.values() if not book.is_return]


def answers(book: Runbook, candidate: Candidate) -> bool:
    """Tell whether *book* starts on *candidate*."""
    return book.mode is not Mode.OFF and book.cause == candidate.kind and book.leaves in candidate.equipment


def power_gaps(config: Config) -> list[str]:
    """Return what is not seen of power."""
    supplies = [one for one in config.site.equipment.values() if one.kind == "ups"]
    if not supplies:
        return ["no UPS: loss of the mains is not seen before everything stops"]
    gaps = []
    sources = sorted({source for one in supplies for source in (one.fed_by or ("utility",))})
    for source in sources:
        fed = [one.name for one in supplies if source in (one.fed_by or ("utility",))]
        if len(fed) == 1:
            gaps.append(
                f"one witness of the mains ({source}): {fed[0]} alone cannot tell an outage from a fault of its own "
                "input; a second UPS fed by the same mains would settle it"
            )
    if not config.agent.fed_by:
        gaps.append("site.agent.fed_by is not given: how long the agent itself lasts on battery is not known")
    return gaps


def lines_of(config: Config) -> dict[str, LineFacts]:
    """Return the facts of each line."""
    return {one.name: one.line for one in config.site.equipment.values() if one.line is not None}


def line_gaps(config: Config) -> list[str]:
    """Return which faults of lines have no answer."""
    lines = lines_of(config)
    if not lines:
        return ["no line: loss of the network is not seen"]
    gaps = [] if len(lines) > 1 else [f"one line: nothing takes over when {next(iter(lines))} fails"]
    for name, facts in lines.items():
        active = [book for book in swaps(config) if book.leaves == name and book.mode is not Mode.OFF]
        if len(lines) > 1 and facts.role == "primary" and not active:
            gaps.append(f"no runbook leaves {name}: when it fails, a person moves the traffic")
    by_provider: dict[str, list[str]] = {}
    for name, facts in lines.items():
        if facts.provider is not None:
            by_provider.setdefault(facts.provider, []).append(name)
    gaps += [
        f"{' and '.join(names)} are both of {provider}: its network failing takes both"
        for provider, names in by_provider.items()
        if len(names) > 1
    ]
    if not any(one.kind == "path" for one in config.site.equipment.values()):
        gaps.append("no path: whether the site's own traffic arrives is not seen")
    return gaps


def rung_gaps(config: Config) -> list[str]:
    """Return what cannot be told apart for want of a target."""
    gaps = []
    for name, facts in lines_of(config).items():
        if "hq" not in facts.rungs:
            gaps.append(f"{name} has no hq target: whether it reaches headquarters is not seen")
        if "edge" not in facts.rungs:
            gaps.append(f"{name} has no edge target: its access line and the provider's network are not told apart")
        if "cpe" not in facts.rungs:
            gaps.append(f"{name} has no cpe target: the provider's box on site and its access line are not told apart")
        if facts.provider is None:
            gaps.append(f"{name} names no provider: whether lines share one is not known")
    return gaps


def runbook_notes(config: Config) -> list[str]:
    """Return in plain words what each runbook will do."""
    return [
        f"runbook {book.name} moves the site from {book.leaves} to {book.enters}, {how_often(book)}: "
        f"it {EFFECTS[book.mode]}; {way_home(config.site.runbooks.get(f'{book.name}.return'))}"
        for book in swaps(config)
    ]


def how_often(book: Runbook) -> str:
    """Return in words how often *book* may act."""
    limits = book.limits
    return "without limit" if limits.budget is None else f"at most {limits.budget} times in {minutes(limits.budget_s)}"


def way_home(book: Runbook | None) -> str:
    """Return in words when *book*, the way home, is taken."""
    if book is None or book.failback is None:
        return "there is no way home but by hand"
    if not book.failback.automatic:
        return "a person decides about the way home"
    good_for = minutes(book.failback.good_for_s)
    return f"home after {book.enters} has been good for {good_for}, at most {book.failback.per_day} times a day"


def minutes(length_s: float) -> str:
    """Return a length of time in words."""
    return f"{length_s / 60:g} min" if length_s >= MINUTE_S else f"{length_s:g} s"
