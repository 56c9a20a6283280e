"""The application: joins config, probes, executor, journal, loop and edge into one running agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent import __version__
from agent.clock import Clock, SystemClock
from agent.config import Config, load
from agent.control import ControlServer
from agent.core.model import Started
from agent.core.records import Record
from agent.core.state import Durable, State
from agent.credentials import CredentialError
from agent.errors import ConfigError, JournalBroken, StateDirectoryInUse
from agent.metrics import Exporter
from agent.ports import Action, ActionContext, ActionKind, Probe, ProbeContext, RouteTable
from agent.reload import Parts, Reloader
from agent.runtime.codec import PlainError
from agent.runtime.executor import Executor
from agent.runtime.journal import Journal, open_journal, set_aside
from agent.runtime.journal_none import NoStore
from agent.runtime.ledger import SqliteLedger
from agent.runtime.loop import Loop
from agent.runtime.notify_systemd import Notifier, told_to_systemd
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
    credentials: Path | None = None  # a directory of secrets; None: the one that systemd gives


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent, for those who hold it: the command line, the demo, tests."""

    reloader: Reloader
    loop: Loop
    poller: Poller
    web: WebServer
    tasks: tuple[asyncio.Task[None], ...]

    @property
    def config(self) -> Config:
        """Return what the site file said when it was taken last."""
        return self.reloader.config

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


def run(config_path: Path, *, state_dir: Path | None = None, credentials: Path | None = None) -> int:
    """
    Run the agent for the site file at *config_path* until a signal; return the exit code. *credentials*: a directory of
    secrets, instead of the one that systemd gives.
    """
    try:
        config = load(config_path, PROBES, ACTIONS)
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s:%s", error.source, problem)
        return EXIT_CONFIG
    try:
        asyncio.run(until_signal(config, state_dir or config.state_dir, credentials))
    except CredentialError as error:
        log.error("%s", error)
        return EXIT_CONFIG
    except StateDirectoryInUse as error:
        log.error("%s", error)
        return EXIT_IN_USE
    return EXIT_DONE


async def until_signal(config: Config, state_dir: Path, credentials: Path | None = None) -> None:
    """Run the agent until SIGTERM or SIGINT; SIGHUP lets it read its site file anew."""
    stop, anew = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, anew.set)
    async with (
        running(config, state_dir, replace(this_machine(), credentials=credentials)) as agent,
        told_to_systemd(agent.loop, agent.in_brief) as notifier,
    ):
        log.info("agent.ready site=%s state=%s", config.site.id, state_dir)
        ended = asyncio.create_task(agent.wait())
        stopped = asyncio.create_task(stop.wait())
        rereading = asyncio.create_task(reread_when_told(anew, agent, notifier), name="reload")
        done, pending = await asyncio.wait({ended, stopped, rereading}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()


async def reread_when_told(anew: asyncio.Event, agent: Agent, notifier: Notifier) -> None:
    """Read the site file anew whenever *anew* is set; told twice meanwhile, it is read once more."""
    while True:
        await anew.wait()
        anew.clear()
        reading = asyncio.create_task(agent.loop.reread("SIGHUP"))
        notifier.reloading(until=reading.done)
        try:
            await reading
        except TimeoutError:
            log.warning("reload.not_durable reason=%s", agent.loop.journal_view.reason or "the disk is slow")
        except Exception:
            log.exception("reload.failed")  # a mistake in here is no reason to stop watching
        notifier.beat()  # `systemctl reload` waits for it


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

        builder = Builder(around)
        probes = [builder.probe(name, config) for name in config.probe_configs]
        poller = Poller(probes, around.clock, publish)
        loop.connect(executor, poller)
        web = WebServer(Exporter(loop, poller), loop, config.server, around.credentials)
        parts = Parts(
            loop=loop,
            read=lambda: load(config.source, PROBES, ACTIONS),
            probe=builder.probe,
            actions=lambda new: bound_actions(new, around),
            run_probes=poller.replace,
            run_actions=executor.rebind,
            know_points=points.know,
            access=web.read_anew,
        )
        reloader = Reloader(config, probes, parts)
        loop.on_reread(reloader.reload)
        control = ControlServer(config.server.socket, loop)
        started = Started(__version__, config.digest, memory.broken is None, memory.broken or "")
        tasks = (
            asyncio.create_task(loop.run(started), name="loop"),
            asyncio.create_task(poller.run(), name="poller"),
        )
        stack.push_async_callback(end_tasks, tasks)
        await stack.enter_async_context(control)
        await stack.enter_async_context(web)
        yield Agent(reloader, loop, poller, web, tasks)


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


class Builder:
    """Builds probes. Line probes of one agent set off each other's bursts, also those that a reload brings."""

    def __init__(self, around: Surroundings) -> None:
        self._context = ProbeContext(around.clock, {}, around.opener)

    def probe(self, name: str, config: Config) -> Probe:
        """Return the probe of the equipment *name*."""
        kind, own = config.probe_configs[name]
        return PROBES[kind].make(name, own, replace(self._context, lines=config.lines))


def built_probes(config: Config, around: Surroundings) -> list[Probe]:
    """Return the probes of the site, built."""
    builder = Builder(around)
    return [builder.probe(name, config) for name in config.probe_configs]


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
