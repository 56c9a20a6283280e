"""
Reads the site file anew while the agent runs, and puts it in the place of the one before, or refuses it and says why.

All that may fail comes first: reading, checking, building. Then the loop takes the new site in one step, and in the same
moment nothing is published any more of probes that have changed, so that no old fact is taken for a new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from agent.config import Config
from agent.core.model import PointId, PointSpec
from agent.core.records import ConfigRefused, SiteReloaded
from agent.core.reload import SiteChange
from agent.core.site import Site
from agent.core.state import Durable, State
from agent.coverage_change import coverage_change
from agent.credentials import CredentialError
from agent.equipment import PATH
from agent.errors import ConfigError
from agent.ports import Action, ActionKind, Probe
from agent.views.parts import Plain

WRONG_FILE: Final = "wrong_file"
NOT_NOW: Final = "not_now"
PROBLEMS_MAX: Final = 50  # kept in the record; the log has them all

log = logging.getLogger(__name__)

Actions = Mapping[str, tuple[ActionKind, Action]]


class ReloadedLoop(Protocol):
    """What is asked of the loop."""

    @property
    def state(self) -> State: ...

    def reload(self, site: Site, record: SiteReloaded, change: SiteChange) -> tuple[str, ...]:
        """Take *site*; return why not."""
        ...

    def refuse_reload(self, record: ConfigRefused) -> None:
        """Remember a refusal."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What a reload reads by and changes. `read` may wait for the disk and runs in a thread. `probe` builds the probe of one
    piece of equipment, `actions` the verbs. `access` looks at certificate, key and passwords again and returns what puts
    them in force; it raises CredentialError.
    """

    loop: ReloadedLoop
    read: Callable[[], Config]
    probe: Callable[[str, Config], Probe]
    actions: Callable[[Config], Actions]
    run_probes: Callable[[Sequence[Probe]], None]
    run_actions: Callable[[Actions], None]
    know_points: Callable[[Mapping[PointId, PointSpec]], None]
    access: Callable[[], Callable[[], None]]


class Reloader:
    """Keeps what is in force: `config`, and the probes by equipment. One reload at a time."""

    def __init__(self, config: Config, probes: Sequence[Probe], parts: Parts) -> None:
        self.config = config
        self._probes = {probe.equipment: probe for probe in probes}
        self._parts = parts
        self._turn = asyncio.Lock()

    async def reload(self, owner: str) -> Plain:
        """
        Read the site file anew for *owner* and return {ok, code, problems, no_longer_covered, newly_covered,
        needs_restart}. `code` is `wrong_file` or `not_now`; then all goes on as before, and `problems` says why.
        """
        async with self._turn:
            try:
                new = await asyncio.to_thread(self._parts.read)
                access = await asyncio.to_thread(self._parts.access)
            except ConfigError as error:
                return self._refuse(owner, WRONG_FILE, [f"{error.source}:{problem}" for problem in error.problems])
            except CredentialError as error:
                return self._refuse(owner, WRONG_FILE, [str(error)])
            # No wait from here to the end: what is decided on is what is changed.
            return self._take(owner, new, access)

    def _take(self, owner: str, new: Config, access: Callable[[], None]) -> Plain:
        old, parts = self.config, self._parts
        changed = changed_equipment(old, new)
        probes = {
            name: self._probes[name] if name in self._probes and name not in changed else parts.probe(name, new)
            for name in new.probe_configs
        }
        actions = parts.actions(new)
        covered = coverage_change(old, new)
        lost = (*covered.no_longer_covered, *stranded(parts.loop.state.durable, old.site, new.site))
        record = SiteReloaded(new.digest, owner, lost, covered.newly_covered, needs_restart(old, new))
        lines = frozenset(name for name in changed if name in old.lines or name in new.lines)
        points = frozenset(point for name in changed for point in points_of(old, name))
        reasons = parts.loop.reload(new.site, record, SiteChange(lines, points))
        if reasons:
            return self._refuse(owner, NOT_NOW, reasons)
        parts.run_probes(list(probes.values()))
        parts.run_actions(actions)
        parts.know_points(new.site.points)
        access()
        self._probes = probes
        self.config = replace(new, server=old.server, state_dir=old.state_dir)  # until the next start
        tell(record)
        return answer(None, (), record)

    def _refuse(self, owner: str, code: str, problems: Sequence[str]) -> Plain:
        """Go on as before; tell every problem."""
        for problem in problems:
            log.error("reload.refused owner=%s problem=%s", owner, problem)
        kept = tuple(problems[:PROBLEMS_MAX])
        if len(problems) > PROBLEMS_MAX:
            kept = (*kept, f"and {len(problems) - PROBLEMS_MAX} more; see: changeover check")
        self._parts.loop.refuse_reload(ConfigRefused(str(self.config.source), owner, code, kept))
        return answer(code, problems, None)


def answer(code: str | None, problems: Sequence[str], record: SiteReloaded | None) -> Plain:
    """Return what became of a reload, for JSON."""
    return {
        "ok": code is None,
        "code": code,
        "problems": list(problems),
        "no_longer_covered": list(record.no_longer_covered) if record is not None else [],
        "newly_covered": list(record.newly_covered) if record is not None else [],
        "needs_restart": list(record.needs_restart) if record is not None else [],
    }


def tell(record: SiteReloaded) -> None:
    """Leave in the log what has changed."""
    log.info("reload.done owner=%s digest=%s", record.owner, record.digest[:12])
    for line in record.no_longer_covered:
        log.warning("reload.no_longer_covered what=%s", line)
    for line in record.newly_covered:
        log.info("reload.newly_covered what=%s", line)
    for line in record.needs_restart:
        log.warning("reload.needs_restart what=%s", line)


def changed_equipment(old: Config, new: Config) -> set[str]:
    """Return the probed equipment that has gone, or that is looked at otherwise. The path is looked at over the lines."""
    names = set(old.probe_configs)
    changed = {name for name in names if looked_at(old, name) != looked_at(new, name)}
    if old.lines != new.lines:
        changed |= {name for name in names if (one := old.site.equipment.get(name)) is not None and one.kind == PATH}
    return changed


def looked_at(config: Config, name: str) -> Any:
    """Return how the equipment *name* is looked at."""
    return config.probe_configs.get(name), config.channels.get(name)


def points_of(config: Config, name: str) -> list[PointId]:
    """Return the points of the equipment *name*."""
    return [point for point in config.site.points if point.startswith(f"{name}.")]


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """Return what of the section `server` differs from what is in force: doors and directories are opened at the start."""
    pairs = {
        "server.socket": (old.server.socket, new.server.socket),
        "server.metrics": (metrics_address(old), metrics_address(new)),
        "server.metrics_tls": (old.server.tls, new.server.tls),
        "server.metrics_password_file": (old.server.password_file, new.server.password_file),
        "server.state_dir": (old.state_dir, new.state_dir),
    }
    return tuple(
        f"{key} has changed: that takes effect when the agent starts anew"
        for key, (before, after) in pairs.items()
        if before != after
    )


def metrics_address(config: Config) -> tuple[str, int]:
    """Return where `/metrics` is served."""
    return config.server.metrics_host, config.server.metrics_port


def stranded(durable: Durable, old: Site, new: Site) -> tuple[str, ...]:
    """Return the arrangements that the site is in and that *new*, unlike *old*, has no way home from."""

    def ways_home(site: Site) -> set[str | None]:
        return {book.returns_from for book in site.runbooks.values()}

    lost = ways_home(old) - ways_home(new)
    return tuple(
        f"the way home from {one.name}, which the site is in: traffic is on {one.line} until a person moves it"
        for one in durable.arrangements.values()
        if one.name in lost
    )
