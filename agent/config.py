"""
Loads the site file: YAML to a frozen Config, every mistake at once with file, line, column, path and cure.

The tables of probes and actions are arguments, so that this module knows no plug-in by name. Keys are checked by hand
over the dataclasses' own fields: that gives an exact place and a "did you mean" for each, and needs no second model.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent import binding, compile_site
from agent.core.model import Mode
from agent.core.site import Site, make_site
from agent.core.topology import candidates_of
from agent.equipment import Declared, base, check_names, declared, lines
from agent.errors import ConfigError
from agent.fields import Node, Notes, choice, mapping, name, near_only, one_or_more, optional, seconds, text
from agent.ports import ActionKind, ProbeKind
from agent.scripts import require
from agent.server_section import ServerConfig, read_server
from agent.yaml_source import read

SECTIONS: Final = ("site", "equipment", "alarms", "runbooks", "server")
LATER: Final = ("services", "people", "notify", "drills")
SITE_KEYS: Final = ("id", "name", "region", "timezone", "language", "agent")
SITE_LATER: Final = ("service_hours", "calendar")
AGENT_KEYS: Final = ("host", "fed_by", "through", "boot_guard")
RIGHTS: Final = {"kernel-routes": "CAP_NET_ADMIN"}  # channel of a verb -> what it needs
LANGUAGES: Final = ("zh", "en")
BOOT_GUARD_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """The agent's own place in the topology: the host it runs on, what feeds that, by what way it reaches the site."""

    host: str | None = None
    fed_by: tuple[str, ...] = ()
    through: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """
    Everything the site file says.

    `probe_configs`: equipment -> (name of the probe kind, its config). `lines`: line -> its config. `channels`:
    equipment -> the way by which its facts come. `digest`: SHA-256 of the file's text. `needs`: rights beyond those of
    an ordinary user, each with what it is for.
    """

    site: Site
    probe_configs: Mapping[str, tuple[str, Any]]
    lines: Mapping[str, Any]
    channels: Mapping[str, str]
    server: ServerConfig
    state_dir: Path
    source: Path
    digest: str
    region: str = ""
    timezone: str = "UTC"
    agent: AgentPlace = field(default_factory=AgentPlace)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """What the section `site` says."""

    id: str = ""
    name: str = ""
    region: str = ""
    timezone: str = "UTC"
    language: str = "en"
    agent: AgentPlace = field(default_factory=AgentPlace)
    boot_guard_s: float = BOOT_GUARD_S


def load(path: Path, probes: Mapping[str, ProbeKind], actions: Mapping[str, ActionKind]) -> Config:
    """
    Return what the site file at *path* says.

    Raises:
        ConfigError: it cannot be read, or holds mistakes; `problems` has every one that was found, in file order.
    """
    document = read(path)
    notes = Notes(document)
    node = Node(notes, (), document.data)
    if document.data is None:
        node.wrong("the file is empty", "config.example.yaml shows what belongs in it")
    elif mapping(node, (*SECTIONS, *LATER), what="a mapping of sections: site, equipment, …"):
        config = compiled(node, path, probes, actions)
        if not notes.in_order():
            return config
    raise ConfigError(str(path), notes.in_order())


def compiled(node: Node, path: Path, probes: Mapping[str, ProbeKind], actions: Mapping[str, ActionKind]) -> Config:
    """Return the Config in *node*. It is of use only if no mistake was noted on the way."""
    refuse_later(node, LATER)
    require(node, "site", "equipment")
    found = declared(node.get("equipment"), probes)
    head = read_site(node.get("site"), found)
    server, state_dir = read_server(node.get("server"), refuse_later)
    entries = binding.entries(node.get("runbooks"), found, actions, path.parent)
    digest = hashlib.sha256(node.notes.document.text.encode()).hexdigest()
    return Config(
        site=site_of(node, head, found, entries, digest),
        probe_configs={
            o.name: (o.probe.name, o.config) for o in found.values() if o.probe is not None and o.is_whole()
        },
        lines={word: line.config for word, line in lines(found).items()},
        channels={one.name: one.channel() for one in found.values() if one.is_whole()},
        server=server,
        state_dir=state_dir,
        source=path,
        digest=digest,
        region=head.region,
        timezone=head.timezone,
        agent=head.agent,
        needs=rights_needed(found, entries),
    )


def site_of(
    node: Node, head: Head, found: Mapping[str, Declared], entries: tuple[binding.Entry, ...], digest: str
) -> Site:
    """Return the core's Site."""
    specs = compile_site.point_specs(found)
    points = compile_site.full_points(specs)
    equipment = compile_site.core_equipment(found, specs)
    plant = binding.Plant(found, {word: frozenset(names) for word, names in specs.items()})
    good_for_s = {entry.leaves: binding.good_for_s(entry, found) for entry in entries if entry.way_home is not None}
    shipped = compile_site.shipped_alarms(found, equipment, points, good_for_s)
    broken = [one for one in found.values() if one.probe is not None and not one.is_whole()]
    alarms = compile_site.overridden(node.get("alarms"), shipped, points, broken)
    runbooks = tuple(book for entry in entries for book in binding.bound(entry, plant))
    is_right = not node.notes.in_order()
    return make_site(
        id=head.id,
        name=head.name,
        language=head.language,
        digest=digest,
        equipment=equipment,
        points=points,
        alarms=alarms,
        candidates=candidates_of(equipment, (alarm.key for alarm in alarms)) if is_right else (),
        runbooks=runbooks,
        boot_guard_s=head.boot_guard_s,
    )


def refuse_later(node: Node, keys: tuple[str, ...]) -> None:
    """Note each of *keys* that holds something: it is part of the file's shape, and not yet of this version."""
    for key in keys:
        child = node.get(key)
        if child is not None and child.value not in (None, {}, []):
            child.wrong("not yet supported by this version", "leave it out", key=True)


# ---------------------------------------------------------------- site


def read_site(node: Node | None, found: Mapping[str, Declared]) -> Head:
    """Return what the section `site` says."""
    if node is None or not mapping(node, (*SITE_KEYS, *SITE_LATER)):
        return Head()
    refuse_later(node, SITE_LATER)
    require(node, "id")
    word = optional(node.get("id"), name, "")
    place, boot_guard_s = read_agent(node.get("agent"), found)
    return Head(
        id=word,
        name=optional(node.get("name"), text, word),
        region=optional(node.get("region"), text, ""),
        timezone=optional(node.get("timezone"), zone, "UTC"),
        language=optional(node.get("language"), lambda n: choice(n, LANGUAGES), "en"),
        agent=place,
        boot_guard_s=boot_guard_s,
    )


def zone(node: Node) -> str | None:
    """Return the name of a time zone that this machine knows."""
    word = text(node)
    if word is None:
        return None
    known = zoneinfo.available_timezones()
    if word in known or not known:  # a machine without any zone cannot tell a wrong one
        return word
    node.wrong("this machine knows no such time zone", near_only(word, known) or "write it like Asia/Shanghai")
    return None


def read_agent(node: Node | None, found: Mapping[str, Declared]) -> tuple[AgentPlace, float]:
    """Return the agent's own place, and for how long it only looks after its start, in seconds."""
    hosts = [one.name for one in found.values() if one.kind == "host"]
    usual = hosts[0] if len(hosts) == 1 else None
    if node is None or node.value is None or not mapping(node, AGENT_KEYS):
        return AgentPlace(usual), BOOT_GUARD_S
    host = optional(node.get("host"), text, "") or usual
    fed_by = one_or_more(node.get("fed_by"), text)
    through = optional(node.get("through"), text, "") or None
    check_names(node.get("host"), (host,) if host is not None else (), hosts)
    check_names(node.get("fed_by"), fed_by, found)
    check_names(node.get("through"), (base(through),) if through is not None else (), found)
    boot_guard_s = optional(node.get("boot_guard"), seconds, BOOT_GUARD_S)
    return AgentPlace(host, fed_by, through), boot_guard_s


def rights_needed(found: Mapping[str, Declared], entries: tuple[binding.Entry, ...]) -> tuple[str, ...]:
    """Return why the agent needs more than an ordinary user's rights for this site."""
    needs = []
    if lines(found):
        needs.append("CAP_NET_RAW: probes leave by the line that they are bound to")
    for entry in entries:
        for channel in sorted({step.action.channel for step in entry.script.steps} & RIGHTS.keys()):
            if entry.mode in (Mode.ASK, Mode.AUTO):
                needs.append(f"{RIGHTS[channel]}: runbook {entry.name} gives commands to {channel}")
    return tuple(needs)
