"""Reads the section `equipment`: what there is, what feeds it, by what way it is reached, and the keys of its probe."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.fields import Node, choice, did_you_mean, is_name, mapping, one_or_more, optional, record, text
from agent.ports import ProbeKind
from agent.yaml_source import shown

COMMON_KEYS: Final = ("kind", "probe", "fed_by", "through")
UNPROBED: Final = ("utility",)  # kinds that are seen only through what they feed
LATER: Final = ("breaker", "transfer_switch", "generator", "pdu", "switch", "database", "endpoint", "sensor")
PATH: Final = "path"  # kind and usual name of the way that the site's own traffic takes
ROLES: Final = ("primary", "standby")
CIRCLES_MAX: Final = 20  # told at once; each is looked for in the whole
OWN_TARGETS: Final = ("cpe",)  # targets that two lines cannot have in common


@dataclass(frozen=True, slots=True)
class Declared:
    """One piece of equipment as declared. `config` is None where there is no probe, or where its keys are wrong."""

    node: Node
    name: str
    kind: str
    fed_by: tuple[str, ...]
    through: str | None
    probe: ProbeKind | None
    config: Any

    def is_whole(self) -> bool:
        """Tell whether its points are known."""
        return self.probe is not None and self.config is not None

    def channel(self) -> str:
        """Return the way by which its facts come."""
        return self.probe.channel(self.name, self.config) if self.probe is not None else ""

    def at(self, *keys: str) -> Node:
        """Return the value under *keys*, as near as there is one."""
        node = self.node
        for key in keys:
            node = node.get(key) or node
        return node


def declared(node: Node | None, probes: Mapping[str, ProbeKind]) -> dict[str, Declared]:
    """Return what the section declares, by name; mistakes are noted."""
    if node is None or not mapping(node, what="a mapping of names to equipment"):
        return {}
    if not node.value:
        node.wrong("nothing is watched", "name at least one piece of equipment", key=True)
    found: dict[str, Declared] = {}
    for word, child in node.children():
        one = read_one(child, word, probes) if is_name(child, word) else None
        if one is not None:
            found[word] = one
    check_references(found, node)
    check_lines(found)
    check_paths(found)
    return with_path(found, probes)


def read_one(node: Node, word: str, probes: Mapping[str, ProbeKind]) -> Declared | None:
    """Return one piece of equipment, None when it is not clear what it is."""
    if not mapping(node, what="a mapping such as {kind: ups, …}"):
        return None
    kind = read_kind(node, probes)
    if kind is None:
        return None
    fed_by = one_or_more(node.get("fed_by"), text)
    through = optional(node.get("through"), text, "") or None
    if kind in UNPROBED:
        mapping(node, ("kind",))
        return Declared(node, word, kind, fed_by, through, None, None)
    probe = read_probe(node, kind, probes)
    config = record(node, probe.config, beside=COMMON_KEYS) if probe is not None else None
    return Declared(node, word, kind, fed_by, through, probe, config)


def read_kind(node: Node, probes: Mapping[str, ProbeKind]) -> str | None:
    """Return the kind that is named."""
    known = (*UNPROBED, *dict.fromkeys(kind for probe in probes.values() for kind in probe.equipment_kinds))
    child = node.get("kind")
    if child is None:
        if not node.has("kind"):
            node.wrong("kind is missing", f"add kind: one of {', '.join(known)}", key=True)
        return None
    if child.value in LATER:
        child.wrong(f"kind {child.value} is not yet supported by this version", f"known: {', '.join(known)}")
        return None
    return choice(child, known)


def read_probe(node: Node, kind: str, probes: Mapping[str, ProbeKind]) -> ProbeKind | None:
    """Return the probe that is named, or the first that fits *kind*."""
    fitting = {probe.name: probe for probe in probes.values() if kind in probe.equipment_kinds}
    child = node.get("probe")
    if child is None:
        return next(iter(fitting.values()))
    word = choice(child, fitting)
    return fitting[word] if word is not None else None


# ---------------------------------------------------------------- checks over the whole


def check_references(found: Mapping[str, Declared], section: Node) -> None:
    """Note what is fed by, or reached through, something that is not there or itself."""
    known = section.value.keys()
    for one in found.values():
        check_names(one.node.get("fed_by"), one.fed_by, known)
        check_names(one.node.get("through"), (one.through,) if one.through else (), known)
    for relation, sources in (
        ("fed_by", {one.name: one.fed_by for one in found.values()}),
        ("through", {one.name: (base(one.through),) for one in found.values() if one.through}),
    ):
        for cycle in cycles(sources):
            found[cycle[0]].at(relation).wrong(f"goes round in a circle: {' -> '.join(cycle)}")


def base(through: str) -> str:
    """Return the equipment in *through*: `core-sw/3` is port 3 of core-sw."""
    return through.partition("/")[0]


def check_names(node: Node | None, words: Iterable[str], known: Collection[str]) -> None:
    """Note each of *words* that is not *known*, at its place under *node*."""
    for word in words:
        if node is not None and base(word) not in known:
            index = node.value.index(word) if isinstance(node.value, list) else None
            at = node if index is None else node.child(index, word)
            at.wrong(f"there is no equipment {shown(base(word))}", did_you_mean(base(word), known))


def cycles(sources: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Return the circles in *sources*, each beginning and ending with the same name."""
    graph = {word: set(words) for word, words in sources.items()}
    circles: list[list[str]] = []
    while len(circles) < CIRCLES_MAX:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            circle: list[str] = list(reversed(error.args[1]))
            start = circle.index(min(circle[:-1]))
            circles.append(circle[start:-1] + circle[: start + 1])
            graph[circle[0]].discard(circle[1])
        else:
            break
    return circles


def lines(found: Mapping[str, Declared]) -> dict[str, Declared]:
    """Return the lines whose keys are right, by name."""
    return {one.name: one for one in found.values() if one.kind == "line" and one.is_whole()}


def check_lines(found: Mapping[str, Declared]) -> None:
    """Note lines that are two in name and one in truth, and a second primary."""
    seen: list[Declared] = []
    for one in lines(found).values():
        for other in seen:
            check_pair(other, one)
        seen.append(one)
    primaries = [one for one in seen if word_of(one, "role") == ROLES[0]]
    for one in primaries[1:]:
        one.at("role").wrong(
            f"{primaries[0].name} is the primary line already", "one line is primary, others are standby"
        )


def word_of(line: Declared, attribute: str) -> str:
    """Return what the line's config says of *attribute*, "" when nothing."""
    value = getattr(line.config, attribute, None)
    return "" if value is None else str(value)


def targets_of(line: Declared) -> Mapping[str, str]:
    """Return the targets of *line*."""
    targets: Mapping[str, str] = getattr(line.config, "targets", {})
    return targets


def check_pair(first: Declared, second: Declared) -> None:
    """Note what two lines must not have in common."""
    same_way = word_of(first, "interface") == word_of(second, "interface") and word_of(first, "source") == word_of(
        second, "source"
    )
    if same_way:
        at = second.at("source" if second.node.has("source") else "interface")
        at.wrong(f"leaves by the same interface and source as {first.name}", "two lines need two ways out")
    if word_of(first, "gateway") and word_of(first, "gateway") == word_of(second, "gateway"):
        second.at("gateway").wrong(f"{word_of(first, 'gateway')} is the gateway of {first.name} too")
    for target in OWN_TARGETS:
        there = targets_of(first).get(target)
        if there and there == targets_of(second).get(target):
            second.at("targets", target).wrong(f"{there} is the {target} of {first.name} too")


def check_paths(found: Mapping[str, Declared]) -> None:
    """Note a second path, and lines that a path names and that are not there."""
    paths = [one for one in found.values() if one.kind == PATH]
    known = [one.name for one in found.values() if one.kind == "line"]
    for one in paths:
        check_names(one.node.get("lines"), getattr(one.config, "lines", ()), known)
    for one in paths[1:]:
        one.at("kind").wrong(f"{paths[0].name} is the path already", "a site has one way for its own traffic")


def with_path(found: dict[str, Declared], probes: Mapping[str, ProbeKind]) -> dict[str, Declared]:
    """Return *found* with `path` added where a primary line tells where headquarters is and no path is declared."""
    probe = next((probe for probe in probes.values() if PATH in probe.equipment_kinds), None)
    primary = next((one for one in lines(found).values() if word_of(one, "role") == ROLES[0]), None)
    target = targets_of(primary).get("hq") if primary is not None else None
    if probe is None or primary is None or not target or any(one.kind == PATH for one in found.values()):
        return found
    if PATH in found:
        found[PATH].node.wrong("this name is kept for the way of the site's own traffic", "call it otherwise", key=True)
        return found
    at = primary.at("targets", "hq")
    config = record(Node(at.notes, at.keys, {"target": target}), probe.config)
    return {**found, PATH: Declared(at, PATH, PATH, (), None, probe, config)}
