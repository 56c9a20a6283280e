"""
`changeover demo`: the agent of a branch on this machine, on stand-ins that can be broken by single keys.

Nothing here needs a right beyond an ordinary user's, and nothing of the machine is changed: lines are addresses of the
loopback, the route table is in memory, and what the agent remembers is in a directory that is removed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.app import Agent, running
from agent.clock import SystemClock, boot_s
from agent.config import load
from agent.core.records import Record
from agent.render import status_text
from agent.views import status
from drills.simsite.branch import FAULTS, GOOD_FOR_S, SimBranch
from drills.simsite.narrator import Narrator, Shown
from drills.simsite.screen import Screen, pressed, terminal_in
from drills.simsite.sentences import say
from probes import PROBES
from runbooks import ACTIONS

KEYS: Final = {"1": "wan1_dead", "2": "wan2_dead", "m": "mains_absent", "b": "battery_low", "h": "hq_dead"}
FAILED: Final = 1
SHOW_EVERY_S: Final = 0.5
IDLE_S: Final = 8.0  # nobody has pressed a key for so long: the keys are told again, once
SOCKET_PATH_MAX: Final = 90  # a control socket's path may have 107 bytes
STORY_BREAK_S: Final = 3.0
STORY_BREAK_SHARE: Final = 0.3  # of a very short demo
STORY_REST_S: Final = 2.0  # from the proof to the mending of the line, long enough to be read
STORY_MAINS_S: Final = 9.0  # what the mains part needs: 2 s until it is an alarm, 3 s until it is over, and reading
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(seconds: float | None, language: str = "en") -> int:
    """
    Run the demo for *seconds*, or (None) until `q` or a signal; return its exit code.

    Without a terminal, and for a given time, it plays a short story by itself until somebody presses a key; then 1 means
    that no swap was proven by traffic. *language* is that of the site file: en or zh.
    """
    directory = Path(tempfile.mkdtemp(prefix="changeover-demo-"))
    if len(str(directory)) > SOCKET_PATH_MAX:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="changeover-demo-", dir="/tmp"))
    keys = terminal_in()
    screen = Screen(sys.stdout, is_live=sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
    code = None
    try:
        with logging_to(directory / "agent.log"):
            code = asyncio.run(perform(directory, screen, seconds=seconds, keys=keys, language=language))
    except OSError as error:
        screen.say(say("no_start", error=error))
    finally:
        screen.close()
        if code != FAILED:
            shutil.rmtree(directory, ignore_errors=True)
    return FAILED if code is None else code


async def perform(
    directory: Path,
    screen: Screen,
    *,
    seconds: float | None,
    keys: int | None = None,
    language: str = "en",
    good_for_s: float = GOOD_FOR_S,
) -> int:
    """
    Run the demo with everything that it makes in *directory*, and return its exit code.

    *keys* is the terminal that keys come from, *good_for_s* how long wan1 must be good before traffic returns.

    Raises OSError: a port, the directory or the loopback is not to be had.
    """
    clock, stop = SystemClock(), asyncio.Event()
    with stopped_by_signals(stop):
        async with SimBranch() as branch:
            config = load(branch.site_file(directory, language, good_for_s), PROBES, ACTIONS)
            async with running(config, config.state_dir, branch.surroundings(clock)) as agent:
                is_story = keys is None or seconds is not None
                greet(screen, agent, directory, has_keys=keys is not None, is_story=is_story)
                show = Show(branch, agent, screen, seconds, stop, is_story=is_story)
                with pressed(keys, show.press):
                    error = await show.run()
    screen.close()
    return conclude(screen, show, directory, error)


def greet(screen: Screen, agent: Agent, directory: Path, *, has_keys: bool, is_story: bool) -> None:
    """Tell what this is, and how to look at it."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "changeover" else "changeover"
    screen.say(say("title"))
    screen.say(say("scene"))
    screen.say(say("metrics", host=agent.web.host, port=agent.web.port))
    screen.say(say("status_command", program=program, site=directory / "site.yaml"))
    screen.say(say("log", log=directory / "agent.log"))
    if has_keys:
        screen.say(say("keys"))
    if is_story:
        screen.say(say("story"))


def conclude(screen: Screen, show: Show, directory: Path, error: BaseException | None) -> int:
    """Tell what was shown, and return the exit code."""
    if error is not None:
        screen.say(say("agent_ended", error=str(error) or type(error).__name__, directory=directory))
        return FAILED
    shown = show.narrator.shown
    was_whole = show.was_story and not show.was_stopped
    if was_whole and shown.swap_ms is None:
        screen.say(say("not_proven", directory=directory))
        return FAILED
    what = shown.in_words()
    screen.say(say("shown", what="; ".join(what)) if what else say("shown_nothing"))
    if was_whole and not shown.returned.is_set():
        screen.say(say("not_returned", seconds=show.good_for_s))
    return 0


class Show:
    """One performance until *stop* is set: takes keys, plays the story, and tells what the agent does."""

    def __init__(
        self,
        branch: SimBranch,
        agent: Agent,
        screen: Screen,
        seconds: float | None,
        stop: asyncio.Event,
        *,
        is_story: bool,
    ) -> None:
        self.was_story = is_story
        self._stop = stop
        self.narrator = Narrator(lambda: agent.loop.site, lambda: agent.loop.state, self.broken_at)
        self._branch = branch
        self._agent = agent
        self._screen = screen
        self._seconds = seconds
        self._began_s = boot_s()
        self._broken_at: dict[str, float] = {}
        self._story: asyncio.Task[None] | None = None
        self._was_hinted = is_story
        agent.loop.on_record(self._tell)

    @property
    def good_for_s(self) -> float:
        """For how long the primary line must be good before traffic returns to it."""
        books = self._agent.config.site.runbooks.values()
        return max((book.failback.good_for_s for book in books if book.failback is not None), default=0.0)

    @property
    def was_stopped(self) -> bool:
        """Tell whether a person ended it before its time, or stopped reading."""
        return self._stop.is_set() or self._screen.is_closed

    async def run(self) -> BaseException | None:
        """Perform until the time is over or somebody stops it; return what ended the agent instead, None if nothing."""
        ended = asyncio.create_task(self._agent.wait())
        tasks = [ended, asyncio.create_task(self._keep_showing()), asyncio.create_task(self._stop.wait())]
        if self.was_story:
            story = Story(self._act, self.narrator.shown, self._left_s, self._seconds)
            self._story = asyncio.create_task(story.play())
        done, _ = await asyncio.wait(tasks, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, self._story):
            if task is not None and not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return next((task.exception() for task in done if task.exception() is not None), None)

    def press(self, key: str) -> None:
        """Do what *key* stands for."""
        self._was_hinted = True
        if key == "q":
            self._stop.set()
        elif key == "s":
            loop = self._agent.loop
            text = status_text(status(loop.site, loop.state, loop.clock.now(), loop.journal_view))
            self._screen.say("\n" + text)
        elif key in KEYS:
            self._take_over()
            self._act(KEYS[key], KEYS[key] not in self._branch.standing)
        elif not key.isspace():
            self._screen.say(say("keys"))

    def broken_at(self, thing: str) -> float | None:
        """Return since when *thing* is broken on purpose, None when it is not."""
        standing = {FAULTS[fault].befalls for fault in self._branch.standing}
        return self._broken_at.get(thing) if thing in standing else None

    def _take_over(self) -> None:
        if self._story is not None and not self._story.done():
            self._story.cancel()
            self.was_story = False
            self._say(say("taken_over"))

    def _act(self, fault: str, is_begin: bool) -> None:
        """Begin or end *fault*, and tell it."""
        if is_begin:
            self._branch.begin(fault)
            self._broken_at[FAULTS[fault].befalls] = boot_s()
        else:
            self._branch.end(fault)
        self._say("> " + say(fault if is_begin else f"{fault}_end", good_for_s=self.good_for_s))

    def _tell(self, record: Record) -> None:
        for sentence in self.narrator.tell(record):
            self._say("  " + sentence)

    def _say(self, sentence: str) -> None:
        self._screen.say(f"{boot_s() - self._began_s:7.2f} s {sentence}")

    def _left_s(self) -> float:
        return float("inf") if self._seconds is None else self._seconds - (boot_s() - self._began_s)

    async def _keep_showing(self) -> None:
        """Show how it stands, again and again; hint at the keys once; stop when nobody reads any more."""
        while not self._screen.is_closed:
            await asyncio.sleep(SHOW_EVERY_S)
            self._screen.show(self.narrator.status(self._agent.loop.clock.now()))
            if not self._was_hinted and boot_s() - self._began_s > IDLE_S:
                self._was_hinted = True
                self._say(say("hint"))


@dataclass(frozen=True, slots=True)
class Story:
    """What is played when nobody presses a key. *left_s* tells how much time there is, *seconds* how much there was."""

    act: Callable[[str, bool], None]
    shown: Shown
    left_s: Callable[[], float]
    seconds: float | None

    async def play(self) -> None:
        """Break the line in use, mend it, and take the mains away when there is time for it."""
        break_s = STORY_BREAK_S if self.seconds is None else min(STORY_BREAK_S, self.seconds * STORY_BREAK_SHARE)
        await asyncio.sleep(break_s)
        await self._break("wan1_dead", self.shown.swapped.wait)
        await self.shown.returned.wait()
        await asyncio.sleep(STORY_REST_S / 2)
        if self.left_s() >= STORY_MAINS_S:
            await self._break("mains_absent", self.shown.mains.wait)

    async def _break(self, fault: str, seen: Callable[[], Awaitable[object]]) -> None:
        self.act(fault, True)
        await seen()
        await asyncio.sleep(STORY_REST_S)
        self.act(fault, False)


@contextlib.contextmanager
def stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set *stop* when somebody wants the program to end, so that it ends in order."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Let the program's log go to *path* alone: the screen is for plain words."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.handlers[:] = [file]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        file.close()
