"""
Causes: which candidate explains what is seen, and whether anything refutes it.

A candidate is a row of data (`site.Candidate`). The bad alarms are grouped by the candidates that predict them; in each
group the candidate nearest the root that explains all of it and is refuted by nothing is named. Two of equal nearness
leave the cause unsettled, and nothing acts on an unsettled cause.

One fresh good point among those predicted refutes a candidate, if it was asked after the first sign of trouble; an
unknown one neither supports nor refutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.core.judge import Verdict
from agent.core.model import AlarmKey
from agent.core.site import Candidate, Equipment, Predicted

ONE_WITNESS: Final = "one witness"


@dataclass(frozen=True, slots=True)
class Raw:
    """
    What the evidence says of one alarm right now, without delays.

    `rungs`: verdict per tier. `since`: boot seconds of the first sign of the present bad run. `asked_at`: how new the
    evidence is. `good_since`: since when it has been seen good without a break, None when it is not.
    """

    rungs: Mapping[str, Verdict]
    since: float | None
    asked_at: float
    good_since: float | None

    def is_good(self) -> bool:
        """Tell whether every rung is left."""
        return bool(self.rungs) and all(verdict is Verdict.GOOD for verdict in self.rungs.values())


@dataclass(frozen=True, slots=True)
class Named:
    """
    A group of bad alarms and the cause named for it. `causes` are candidate ids; more than one: unsettled.

    `against`: candidates that were in question and what refuted each, in words.
    """

    causes: tuple[str, ...]
    alarms: frozenset[AlarmKey]
    settled: bool
    marks: tuple[str, ...]
    against: tuple[str, ...]
    late: bool = False


def name_causes(
    candidates: tuple[Candidate, ...], bad: frozenset[AlarmKey], raw: Mapping[AlarmKey, Raw]
) -> tuple[Named, ...]:
    """Return the groups of *bad* with the cause named for each; every bad alarm is in exactly one group."""
    against: dict[str, str] = {}
    early = [c for c in candidates if not c.late and in_question(c, bad)]
    live = [c for c in early if (why := refutation(c, bad, raw)) is None or against.setdefault(c.id, why) is None]
    named = [name_group(group, live, bad, early, against) for group in groups(live, bad)]
    rest = bad - frozenset(a for n in named for a in n.alarms)
    for candidate in sorted((c for c in candidates if c.late), key=lambda c: c.depth):
        mine = rest & candidate.explains()
        if mine:
            named.append(Named((candidate.id,), mine, True, (), reasons(early, mine, against), late=True))
            rest -= mine
    if rest:
        named.append(Named((), rest, False, (), (), late=True))
    return apart(named)


def apart(named: list[Named]) -> tuple[Named, ...]:
    """Return *named* with each alarm in the first of the groups that it follows from, and in no other."""
    taken: frozenset[AlarmKey] = frozenset()
    found: list[Named] = []
    for group in named:
        found.append(replace(group, alarms=group.alarms - taken))
        taken |= group.alarms
    return tuple(found)


def in_question(candidate: Candidate, bad: frozenset[AlarmKey]) -> bool:
    """Tell whether enough equipment is seen bad for *candidate* to be asked about at all."""
    seen = {p.equipment for p in candidate.predicts if bad.intersection(p.alarms)}
    return len(seen) >= candidate.support


def refutation(candidate: Candidate, bad: frozenset[AlarmKey], raw: Mapping[AlarmKey, Raw]) -> str | None:
    """Return what refutes *candidate* in words, None when nothing does."""
    first = min(
        (since for p in candidate.predicts for a in p.alarms if a in bad and (since := since_of(raw, a)) is not None),
        default=None,
    )
    for point in candidate.predicts:
        if not bad.intersection(point.alarms) and seen_good(point, raw, first):
            return f"{point.alarms[0]} is seen good since"
    return None


def since_of(raw: Mapping[AlarmKey, Raw], alarm: AlarmKey) -> float | None:
    """Return since when *alarm* has been bad by its evidence, in boot seconds."""
    entry = raw.get(alarm)
    return entry.since if entry is not None else None


def seen_good(point: Predicted, raw: Mapping[AlarmKey, Raw], after: float | None) -> bool:
    """Tell whether all alarms of *point* are seen good by evidence asked for later than *after*."""
    entries = [raw.get(alarm) for alarm in point.alarms]
    return all(e is not None and e.is_good() and (after is None or e.asked_at > after) for e in entries)


def groups(live: list[Candidate], bad: frozenset[AlarmKey]) -> list[frozenset[AlarmKey]]:
    """Return the connected groups of bad alarms: two are connected when one live candidate predicts both."""
    found: list[set[AlarmKey]] = []
    for candidate in live:
        mine = {a for p in candidate.predicts for a in p.alarms} & bad
        touching = [g for g in found if g & mine]
        for group in touching:
            found.remove(group)
            mine |= group
        found.append(mine)
    return [frozenset(group) for group in found]


def name_group(
    group: frozenset[AlarmKey],
    live: list[Candidate],
    bad: frozenset[AlarmKey],
    early: list[Candidate],
    against: Mapping[str, str],
) -> Named:
    """Return *group* with its cause, and with the alarms that follow from that cause."""
    asked = [c for c in live if group & c.explains()]
    whole = [c for c in asked if group <= c.explains()]
    if whole:
        nearest = min(c.depth for c in whole)
        chosen = [c for c in whole if c.depth == nearest]
    else:
        chosen = asked
    carried = frozenset(a for c in chosen for a in c.explains()) & bad
    alarms = group | carried
    settled = bool(whole) and len(chosen) == 1
    witnesses = {p.equipment for c in chosen for p in c.predicts if bad.intersection(p.alarms)}
    one = settled and chosen[0].kind == "utility" and len(witnesses) == 1
    return Named(
        tuple(c.id for c in chosen), alarms, settled, (ONE_WITNESS,) if one else (), reasons(early, alarms, against)
    )


def reasons(early: list[Candidate], alarms: frozenset[AlarmKey], against: Mapping[str, str]) -> tuple[str, ...]:
    """Return why each other candidate for *alarms* was not taken."""
    return tuple(f"{c.id}: {against[c.id]}" for c in early if c.id in against and alarms & c.explains())


# ---------------------------------------------------------------- candidates of a site


def candidates_of(equipment: Mapping[str, Equipment], alarms: Iterable[AlarmKey]) -> tuple[Candidate, ...]:
    """Return the candidates that the shipped causes give for *equipment*, whose alarms are *alarms*."""
    known = frozenset(alarms)
    lines = [e for e in equipment.values() if e.line is not None]
    paths = [e.name for e in equipment.values() if e.kind == "path"]
    carried = frozenset(a for p in paths for a in known if a.startswith(f"{p}.path_dead"))
    rows: list[Candidate] = []
    for line in lines:
        rows += line_candidates(line, known, carried)
    rows += shared_line_candidates(lines, known, carried)
    rows += power_candidates(equipment, known)
    rows += [device_candidate(e, known) for e in equipment.values()]
    return tuple(row for row in rows if row.predicts or row.carries)


def rung_point(line: str, rung: str) -> Predicted:
    """Return the predicted point of one rung: dead or bad, judged together."""
    return Predicted(line, (AlarmKey(f"{line}.{rung}_dead"), AlarmKey(f"{line}.{rung}_bad")))


def line_candidates(line: Equipment, known: frozenset[AlarmKey], carried: frozenset[AlarmKey]) -> list[Candidate]:
    """Return the places where one line can break, in order from the agent: port, customer's box, access, core."""
    facts, name = line.line, line.name
    if facts is None:
        return []
    rungs = facts.rungs
    soft = carried | frozenset(a for a in known if a.startswith(f"{name}.") and not a.endswith((".binding_failed",)))
    port = (Predicted(name, (AlarmKey(f"{name}.port_down"),)),) if facts.has_port else ()
    beyond_edge = tuple(r for r in rungs if r not in ("cpe", "edge"))
    places: list[tuple[str, int, tuple[Predicted, ...], str]] = []
    every = tuple(rung_point(name, r) for r in rungs)
    if facts.has_port:
        places.append(("port", 1, port + every, f"the port, cable or box of {name}"))
    if "cpe" in rungs:
        places.append(("cpe", 2, every, f"the provider's box of {name} on site"))
    far = tuple(rung_point(name, r) for r in facts.far())
    if far:
        places.append(("access", 3, far, f"the access line of {name}"))
    if "edge" in rungs and beyond_edge:
        core = tuple(rung_point(name, r) for r in beyond_edge)
        places.append(("core", 4, core, f"the provider's core network of {name}"))
    return [
        Candidate(
            id=f"line:{name}:{place}",
            kind="line",
            equipment=(name,),
            predicts=predicts,
            carries=soft - frozenset(a for p in predicts for a in p.alarms) - hard_alarms(name, rungs),
            depth=depth,
            text=text,
        )
        for place, depth, predicts, text in places
    ]


def hard_alarms(line: str, rungs: tuple[str, ...]) -> frozenset[AlarmKey]:
    """Return the alarms of *line* that shape a cause; all its others only follow from one."""
    hard = {a for rung in rungs for a in rung_point(line, rung).alarms}
    return frozenset(hard | {AlarmKey(f"{line}.port_down")})


def shared_line_candidates(
    lines: list[Equipment], known: frozenset[AlarmKey], carried: frozenset[AlarmKey]
) -> list[Candidate]:
    """Return the causes that lines share: this observer, a provider, headquarters, its service."""
    rows: list[Candidate] = []
    names = tuple(line.name for line in lines)
    follow = carried | frozenset(a for a in known if a.endswith(("_degraded", ".service_closed")))
    if len(lines) > 1:
        all_rungs = tuple(rung_point(e.name, r) for e in lines if e.line for r in e.line.rungs)
        ports = tuple(
            Predicted(e.name, (AlarmKey(f"{e.name}.port_down"),)) for e in lines if e.line and e.line.has_port
        )
        text = "this machine or the switch that it hangs on"
        if ports:
            rows.append(Candidate("observer:ports", "observer", names, ports + all_rungs, follow, 0, text, len(ports)))
        rows.append(Candidate("observer", "observer", names, all_rungs, follow, 1, text, len(lines)))
    for provider in sorted({e.line.provider for e in lines if e.line and e.line.provider}):
        mine = [e for e in lines if e.line and e.line.provider == provider]
        if len(mine) > 1:
            predicts = tuple(rung_point(e.name, r) for e in mine if e.line for r in e.line.far())
            shared = tuple(e.name for e in mine)
            text = f"the network of {provider}"
            rows.append(Candidate(f"provider:{provider}", "provider", shared, predicts, follow, 4, text, len(mine)))
    at_hq = tuple(rung_point(e.name, "hq") for e in lines if e.line and "hq" in e.line.rungs)
    if at_hq:
        support = len({p.equipment for p in at_hq})
        rows.append(Candidate("hq", "hq", ("hq",), at_hq, follow, 5, "headquarters", support))
    closed = frozenset(a for a in known if a.endswith(".service_closed"))
    if closed:
        text = "headquarters' service or a firewall: the line itself answers"
        rows.append(Candidate("service", "service", ("hq",), (), closed, 6, text, late=True))
    return rows


def power_candidates(equipment: Mapping[str, Equipment], known: frozenset[AlarmKey]) -> list[Candidate]:
    """Return the causes of power: each utility by what it feeds, and the input of each UPS."""
    rows: list[Candidate] = []
    supplies = [e for e in equipment.values() if e.kind == "ups"]
    sources = sorted({source for e in supplies for source in (e.fed_by or ("utility",))})
    for source in sources:
        fed = [e for e in supplies if source in (e.fed_by or ("utility",))]
        predicts = tuple(mains_point(e.name) for e in fed)
        follow = frozenset(a for e in fed for a in battery_alarms(e.name)) & known
        rows.append(Candidate(f"utility:{source}", "utility", (source,), predicts, follow, 0, f"the mains ({source})"))
    for ups in supplies:
        text = f"the input of {ups.name}: its breaker or cable"
        follow = battery_alarms(ups.name) & known
        rows.append(Candidate(f"input:{ups.name}", "input", (ups.name,), (mains_point(ups.name),), follow, 2, text))
    return rows


def mains_point(ups: str) -> Predicted:
    """Return the input of *ups* as a predicted point."""
    return Predicted(ups, (AlarmKey(f"{ups}.mains_absent"),))


def battery_alarms(ups: str) -> frozenset[AlarmKey]:
    """Return the alarms of *ups* that follow from running on battery."""
    return frozenset(AlarmKey(f"{ups}.{name}") for name in ("runtime_low", "charge_low", "lost_on_battery"))


def device_candidate(device: Equipment, known: frozenset[AlarmKey]) -> Candidate:
    """Return the cause of last resort: the device itself."""
    mine = frozenset(a for a in known if a.startswith(f"{device.name}."))
    return Candidate(f"device:{device.name}", "device", (device.name,), (), mine, 9, device.name, late=True)
