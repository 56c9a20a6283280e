"""The application: joins config, probes, executor, journal, loop and edge into one running agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent import __version__
from agent.clock import Clock, SystemClock
from agent.config import Config, load
from agent.control import ControlServer
from agent.core.model import Started
from agent.core.records import Record
from agent.core.state import Durable, State
from agent.errors import ConfigError, JournalBroken, StateDirectoryInUse
from agent.metrics import Exporter
from agent.ports import Action, ActionContext, ActionKind, Probe, ProbeContext, RouteTable
from agent.runtime.codec import PlainError
from agent.runtime.executor import Executor
from agent.runtime.journal import Journal, open_journal, set_aside
from agent.runtime.journal_none import NoStore
from agent.runtime.ledger import SqliteLedger
from agent.runtime.loop import Loop
from agent.runtime.notify_systemd import told_to_systemd
from agent.runtime.points import PointStore
from agent.runtime.poller import Poller
from agent.runtime.recall import recall
from agent.runtime.state_dir import StateDirectory
from agent.views.brief import in_brief
from agent.web.server import WebServer
from probes import PROBES
from runbooks import ACTIONS
from runbooks.routes import IpRouteTable

EXIT_DONE: Final = 0
EXIT_CONFIG: Final = 2
EXIT_IN_USE: Final = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands between the agent and this machine; the demo and drills put their own in its place."""

    clock: Clock
    routes: RouteTable
    opener: Any = None  # how an unbound echo leaves; None: as the kernel routes it


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent, for those who hold it: the command line, the demo, tests."""

    config: Config
    loop: Loop
    poller: Poller
    web: WebServer
    tasks: tuple[asyncio.Task[None], ...]

    async def wait(self) -> None:
        """Wait until a part of the agent ends, which it only does by an error."""
        done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def in_brief(self) -> str:
        """Return what stands now, in one line."""
        loop = self.loop
        return in_brief(loop.site, loop.state, loop.clock.now(), loop.journal_view)


def this_machine() -> Surroundings:
    """Return the surroundings of a real site."""
    return Surroundings(SystemClock(), IpRouteTable())


def run(config_path: Path, *, state_dir: Path | None = None) -> int:
    """Run the agent for the site file at *config_path* until a signal; return the exit code of design.md 8."""
    try:
        config = load(config_path, PROBES, ACTIONS)
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s:%s", error.source, problem)
        return EXIT_CONFIG
    try:
        asyncio.run(until_signal(config, state_dir or config.state_dir))
    except StateDirectoryInUse as error:
        log.error("%s", error)
        return EXIT_IN_USE
    return EXIT_DONE


async def until_signal(config: Config, state_dir: Path) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(config, state_dir, this_machine()) as agent, told_to_systemd(agent.loop, agent.in_brief):
        log.info("agent.ready site=%s state=%s", config.site.id, state_dir)
        ended = asyncio.create_task(agent.wait())
        stopped = asyncio.create_task(stop.wait())
        done, pending = await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()


@contextlib.asynccontextmanager
async def running(config: Config, state_dir: Path, around: Surroundings) -> AsyncIterator[Agent]:
    """Run an agent for as long as the context lasts. Raises StateDirectoryInUse, OSError."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(StateDirectory(state_dir))
        memory = recalled(state_dir)
        stack.push_async_callback(memory.journal.close)
        loop = Loop(config.site, State(durable=memory.durable), memory.journal, around.clock, cut=memory.cut)
        loop.on_record(tell)
        points = PointStore(state_dir, around.clock, config.site.points)
        stack.callback(points.close)
        executor = Executor(
            bound_actions(config, around), SqliteLedger(state_dir / "executor.db"), around.clock, loop.accepted
        )
        stack.push_async_callback(executor.close)

        def publish(observations: Any) -> None:
            loop.observe(observations)
            points.offer(observations)

        poller = Poller(built_probes(config, around), around.clock, publish)
        loop.connect(executor, poller)
        web = WebServer(Exporter(loop, poller), loop, config.server)
        control = ControlServer(config.server.socket, loop)
        started = Started(__version__, config.digest, memory.broken is None, memory.broken or "")
        tasks = (
            asyncio.create_task(loop.run(started), name="loop"),
            asyncio.create_task(poller.run(), name="poller"),
        )
        stack.push_async_callback(end_tasks, tasks)
        await stack.enter_async_context(control)
        await stack.enter_async_context(web)
        yield Agent(config, loop, poller, web, tasks)


async def end_tasks(tasks: tuple[asyncio.Task[None], ...]) -> None:
    """Cancel *tasks* and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the agent remembers at its start. `cut`: lost as a torn tail. `broken`: why it may not act on it."""

    journal: Journal
    durable: Durable
    cut: str | None = None
    broken: str | None = None


def recalled(state_dir: Path) -> Memory:
    """
    Open the journal and replay it. One that cannot be trusted is set aside untouched and a new one begun; where none can
    be opened at all, nothing is remembered. In both cases the agent watches and notifies, and does not act.
    """
    broken = None
    try:
        try:
            opened = open_journal(state_dir)
        except JournalBroken as error:
            aside = set_aside(state_dir)
            log.critical("journal.broken reason=%s kept=%s", error, aside)
            opened, broken = open_journal(state_dir), f"{error}; kept as {aside.name}"
    except OSError as error:
        log.critical("journal.unusable reason=%s", error)
        return Memory(Journal(NoStore(error)), Durable(), broken=f"the journal cannot be opened: {error}")
    try:
        durable = recall(opened.checkpoint, opened.bodies)
    except PlainError as error:
        opened.store.close()
        aside = set_aside(state_dir)
        log.critical("journal.unreadable reason=%s kept=%s", error, aside)
        opened, durable = open_journal(state_dir), Durable()
        broken = f"a record cannot be read by this version: {error}; kept as {aside.name}"
    return Memory(Journal(opened.store, opened.head, filled=opened.filled), durable, opened.cut, broken)


def built_probes(config: Config, around: Surroundings) -> list[Probe]:
    """Return the probes of the site, built."""
    context = ProbeContext(around.clock, config.lines, around.opener)
    return [PROBES[kind].make(name, own, context) for name, (kind, own) in config.probe_configs.items()]


def bound_actions(config: Config, around: Surroundings) -> Mapping[str, tuple[ActionKind, Action]]:
    """Return the verbs, bound to this site."""
    context = ActionContext(config.lines, around.routes)
    return {name: (kind, kind.make(context)) for name, kind in ACTIONS.items()}


def tell(record: Record) -> None:
    """Leave one line in the log for each thing that was decided; alarms and runs in full, the rest for debugging."""
    body = record.body
    name = type(body).__name__
    level = logging.DEBUG if name in ("DelaysRebased", "StepSent") else logging.INFO
    if log.isEnabledFor(level):
        words = " ".join(
            f"{field}={value}"
            for field in body.__slots__
            if field not in ("facts", "evidence", "rungs", "request", "look", "against")
            and (value := getattr(body, field)) not in (None, "", ())
        )
        log.log(level, "%s %s", name, words)
