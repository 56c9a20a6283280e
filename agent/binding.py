"""Joins runbook scripts to the site's equipment: roles become lines, points become proofs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent.core.judge import Condition, Op
from agent.core.model import Mode, PointId, Value
from agent.core.profiles import PROFILES
from agent.core.runbook import Failback, Limits, Runbook, Step
from agent.equipment import PATH, Declared, lines, word_of
from agent.fields import Node, did_you_mean, enum_of, is_name, mapping, optional, text
from agent.ports import ActionKind
from agent.scripts import Return, Script, ScriptStep, Title, find, load, read_failback, read_limits, require
from agent.yaml_source import shown

ENTRY_KEYS: Final = ("use", "mode", "bind", "limits", "failback")
NO_PATH: Final = "nothing watches the way of the site's own traffic, which has to prove it"
FAR_RUNGS: Final = ("edge", "hq", "second_site")
RETURN_SUFFIX: Final = ".return"
LOCK: Final = "lines"  # two runs that move lines never overlap
RETURN_LIMITS: Final = Limits(None, 0.0, 0.0)  # returns do not count, and a block never stops one


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `runbooks`, read but not yet joined to points. `bind`: role -> line."""

    node: Node
    name: str
    script: Script
    mode: Mode
    bind: Mapping[str, str]
    leaves: str
    enters: str
    limits: Limits
    way_home: Return | None


@dataclass(frozen=True, slots=True)
class Plant:
    """What steps are joined to: the equipment, and each whole one's point names."""

    equipment: Mapping[str, Declared]
    points: Mapping[str, frozenset[str]]


def entries(
    node: Node | None, found: Mapping[str, Declared], actions: Mapping[str, ActionKind], beside: Path
) -> tuple[Entry, ...]:
    """Return the runbooks of the site; mistakes are noted. *beside*: where the paths of own scripts begin."""
    if node is None or node.value is None or not mapping(node, what="a mapping of names to runbooks"):
        return ()
    read: list[Entry] = []
    for word, child in node.children():
        one = read_entry(child, word, found, actions, beside) if is_name(child, word) else None
        if one is None:
            continue
        rival = next((r for r in read if (r.script.cause, r.leaves) == (one.script.cause, one.leaves)), None)
        if rival is not None:
            child.wrong(f"starts on the same trouble as {rival.name}", "keep one runbook for each line", key=True)
        read.append(one)
    return tuple(read)


def read_entry(
    node: Node, word: str, found: Mapping[str, Declared], actions: Mapping[str, ActionKind], beside: Path
) -> Entry | None:
    """Return one runbook entry, None when it cannot be bound."""
    if not mapping(node, ENTRY_KEYS, what="a mapping such as {use: standby_line, mode: watch}"):
        return None
    require(node, "use")
    mode = optional(node.get("mode"), lambda n: enum_of(n, Mode), Mode.WATCH)
    bind = read_bind(node, found)
    use = node.get("use")
    path = find(use, beside) if use is not None else None
    script = load(path, use, actions) if use is not None and path is not None else None
    limits = read_limits(node.get("limits"), script.limits if script is not None else RETURN_LIMITS)
    way_home = read_way_home(node.get("failback"), script)
    if script is None or bind is None:
        return None
    pair = leaves_and_enters(node, script, bind)
    return None if pair is None else Entry(node, word, script, mode, bind, *pair, limits, way_home)


def read_bind(node: Node, found: Mapping[str, Declared]) -> dict[str, str] | None:
    """Return role -> line; where it is not given, each role that exactly one line has. None after a mistake."""
    known = {one.name for one in found.values() if one.kind == "line"}
    by_role: dict[str, list[str]] = {}
    for one in lines(found).values():
        by_role.setdefault(word_of(one, "role"), []).append(one.name)
    child = node.get("bind")
    if child is None:
        return {role: words[0] for role, words in by_role.items() if len(words) == 1}
    if not mapping(child):
        return None
    bind: dict[str, str] = {}
    for role, at in child.children():
        line = text(at)
        if line is None:
            continue
        if line not in found:
            at.wrong(f"there is no equipment {shown(line)}", did_you_mean(line, known))
        elif line not in known:
            at.wrong(f"{line} is no line but of kind {found[line].kind}")
        elif found[line].is_whole() and word_of(found[line], "role") != role:
            at.wrong(f"{line} has the role {word_of(found[line], 'role')}, not {role}")
        elif line in bind.values():
            at.wrong(f"{line} is bound twice")
        else:
            bind[role] = line
    return bind if len(bind) == len(child.value) else None


def leaves_and_enters(node: Node, script: Script, bind: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the line that the runbook leaves and the one that it enters."""
    at = node.get("bind") or node
    if script.role not in bind:
        at.wrong(f"no line is bound to the role {script.role}", f"add bind: {{{script.role}: NAME}}", key=True)
        return None
    others = [line for role, line in bind.items() if role != script.role]
    if len(others) != 1:
        at.wrong(
            f"it takes one line besides {script.role}, {len(others) or 'none'} bound",
            "add bind: {primary: NAME, standby: NAME}",
            key=True,
        )
        return None
    return bind[script.role], others[0]


def read_way_home(node: Node | None, script: Script | None) -> Return | None:
    """Return the way home of the script with what the site file says of it; `none` leaves it out."""
    usual = script.way_home if script is not None else None
    if node is None:
        return usual
    if node.value == "none":
        return None
    if not mapping(node, ("automatic", "good_for", "per_day"), what="none, or {good_for: 10m}"):
        return usual
    if usual is None and script is not None:
        node.wrong("this script has no way home", "leave failback out")
    return read_failback(node, usual if usual is not None else Return(Title(), (), True, None, 2))


def good_for_s(entry: Entry, found: Mapping[str, Declared]) -> float:
    """Return for how long the line must have been good before the way home, in seconds."""
    profile = PROFILES[word_of(found[entry.leaves], "profile")] if found[entry.leaves].is_whole() else None
    usual_s = profile.good_for_s if profile is not None else 0.0
    given_s = entry.way_home.good_for_s if entry.way_home is not None else None
    return usual_s if given_s is None else given_s


# ---------------------------------------------------------------- joining


def bound(entry: Entry, plant: Plant) -> tuple[Runbook, ...]:
    """Return the runbook and, where it has one, its return. Mistakes are noted."""
    script, way_home = entry.script, entry.way_home
    check_provable(entry, plant)
    digest = hashlib.sha256(
        f"{script.document.text}\0{json.dumps(dict(sorted(entry.bind.items())))}".encode()
    ).hexdigest()
    swap = Runbook(
        name=entry.name,
        digest=digest,
        mode=entry.mode,
        cause=script.cause,
        leaves=entry.leaves,
        enters=entry.enters,
        steps=tuple(join(step, entry, plant) for step in script.steps),
        limits=entry.limits,
        on_return=script.on_return,
        arrangement=entry.name,
        lock=LOCK,
        failback=failback_of(entry, plant),
        title_en=script.title.en,
        title_zh=script.title.zh,
    )
    if way_home is None:
        return (swap,)
    home = replace(
        swap,
        name=entry.name + RETURN_SUFFIX,
        cause=None,
        leaves=entry.enters,
        enters=entry.leaves,
        steps=tuple(join(step, entry, plant) for step in way_home.steps),
        limits=RETURN_LIMITS,
        returns_from=swap.arrangement,
        title_en=way_home.title.en,
        title_zh=way_home.title.zh,
    )
    return swap, home


def check_provable(entry: Entry, plant: Plant) -> None:
    """Note a line that nothing beyond its own box could prove: the runbook would never move to it."""
    for line in (entry.leaves, entry.enters):
        points = plant.points.get(line)
        if points is not None and not any(f"{rung}.lost_in_row" in points for rung in FAR_RUNGS):
            message = f"{line} has no target beyond its own box that could prove it"
            plant.equipment[line].at("targets").wrong(message, "add hq: ADDRESS", key=True)


def failback_of(entry: Entry, plant: Plant) -> Failback | None:
    """Return when the way home may be taken."""
    return None if entry.way_home is None else entry.way_home.failback(good_for_s(entry, plant.equipment))


def join(step: ScriptStep, entry: Entry, plant: Plant) -> Step:
    """Return *step* with its words and its proof in the site's names. Mistakes are noted where the script is named."""
    expects, start = asked(step, entry)
    proof: list[Condition] = []
    for point in step.verify:
        if point not in expects:
            complain(step, entry, f"{step.action.name} says nothing of {shown(point)}", did_you_mean(point, expects))
            continue
        proof += conditions({point: expects[point]}, step, entry, plant)
    return Step(
        verb=step.action.name,
        wanted=wanted(step.params, entry),
        proof=tuple(proof),
        start=conditions(start, step, entry, plant),
        within_s=step.within_s,
        if_denied=step.if_denied,
        resendable=step.action.resendable,
        point_of_no_return=step.point_of_no_return,
        title_en=step.title.en,
        title_zh=step.title.zh,
    )


def asked(step: ScriptStep, entry: Entry) -> tuple[Mapping[str, Value], Mapping[str, Value]]:
    """Return what the verb expects when done and before it is begun; nothing after a role that is not bound."""
    try:
        return step.action.expects(step.params, entry.bind), step.action.start(step.params, entry.bind)
    except KeyError as error:
        complain(
            step,
            entry,
            f"no line is bound to the role {shown(error.args[0])}",
            did_you_mean(str(error.args[0]), entry.bind),
        )
        return {}, {}


def complain(step: ScriptStep, entry: Entry, message: str, cure: str = "") -> None:
    """Note what is wrong with *step* at the place where its script is named."""
    document = step.node.notes.document
    problem = document.problem(step.node.keys, message)
    at = entry.node.get("use") or entry.node
    at.wrong(f"{Path(document.source).name}:{problem.line}:{problem.column}: {problem.path}: {message}", cure)


def wanted(params: Any, entry: Entry) -> tuple[tuple[str, Value], ...]:
    """
    Return the verb's words, sorted, with lines in place of roles. `from` is added where one line is named: the other.
    """
    words: dict[str, Value] = {}
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        if isinstance(value, bool | int | float | str):
            words[field.name] = entry.bind.get(value, value) if isinstance(value, str) else value
    pair = {entry.leaves, entry.enters}
    if words.get("to") in pair:
        words["from"] = next(iter(pair - {words["to"]}))
    return tuple(sorted(words.items()))


def conditions(values: Mapping[str, Value], step: ScriptStep, entry: Entry, plant: Plant) -> tuple[Condition, ...]:
    """Return "this point has this value" for each of *values*; notes points that cannot prove it."""
    found = []
    for point, value in values.items():
        place = locate(point, entry, plant)
        if place is NO_PATH:
            entry.node.wrong(NO_PATH, "give the primary line an hq target", key=True)
            continue
        if isinstance(place, str):
            complain(step, entry, place)
            continue
        if place is None:
            continue
        equipment, tail = place
        if equipment.is_whole() and equipment.channel() == step.action.channel:
            complain(
                step,
                entry,
                f"{point} comes by {step.action.channel}, the way of the command itself",
                "name a point that comes by another way",
            )
        found.append(Condition(PointId(f"{equipment.name}.{tail}"), Op.IS, value))
    return tuple(found)


def locate(point: str, entry: Entry, plant: Plant) -> tuple[Declared, str] | str | None:
    """Return the equipment and the point's name in it, what is wrong in words, None when that was noted before."""
    head, _, tail = point.partition(".")
    word = entry.bind.get(head, head)
    if head == PATH and word not in plant.equipment:
        paths = [one for one in plant.equipment.values() if one.kind == PATH]
        if not paths and any(not one.is_whole() for one in plant.equipment.values() if one.kind == "line"):
            return None  # the line that would have told where headquarters is was complained of already
        if not paths:
            return NO_PATH
        word = paths[0].name
    one = plant.equipment.get(word)
    if one is None:
        return f"{point}: there is no equipment {shown(word)}"
    if not one.is_whole():
        return None
    if tail not in plant.points[word]:
        return f"{point}: {word} has no point {shown(tail)}"
    return one, tail
