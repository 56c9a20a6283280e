"""The demo shows the main job, by itself and by keys, and leaves terminal and machine as they were."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from drills.simsite.branch import FAULTS
from drills.simsite.demo import KEYS, perform
from drills.simsite.screen import Screen
from drills.simsite.sentences import TEXTS, say

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from drills.simsite.demo import main; sys.exit(main({seconds}))"
PATIENCE_S = 30.0
DIRECTORY = re.compile(r"-c (\S+)/site\.yaml")


# ---------------------------------------------------------------- by itself


async def test_the_story_shows_the_swap_proven_and_the_return(tmp_path: Path):
    out = StringIO()

    code = await perform(tmp_path, Screen(out, is_live=False), seconds=10.0, good_for_s=1.0)

    told = out.getvalue()
    order = [
        "now: traffic by wan1 | wan1 ok | wan2 ok | mains present | site ok",
        "> " + say("wan1_dead"),
        "incident I1: the access line of wan1",
        "R1 decided: traffic moves from wan1 to wan2",
        "R1 commanded: route to wan2",
        "R1 proven by traffic: headquarters answers over wan2",
        "> wan1 is mended",
        "R2 proven by traffic: headquarters answers over wan1",
        "shown: wan1 broke and traffic moved to wan2, proven after",
    ]
    assert code == 0, told
    places = [told.find(words) for words in order]
    assert -1 not in places, told
    assert places == sorted(places), told
    proven_ms = re.search(r"over wan2, (\d+) ms after wan1 broke", told)
    assert proven_ms is not None, told
    assert int(proven_ms[1]) < 2000, told


async def test_a_demo_too_short_to_prove_a_swap_says_so_and_fails(tmp_path: Path):
    out = StringIO()

    code = await perform(tmp_path, Screen(out, is_live=False), seconds=0.2)

    assert code == 1
    assert say("not_proven", directory=tmp_path) in out.getvalue()


def test_a_reader_that_goes_away_ends_it_quietly():
    with ended(subprocess.Popen(command(20), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == (say("title") + "\n").encode()
        process.stdout.close()

        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == b""


# ---------------------------------------------------------------- by keys


class Terminal:
    """The demo on a terminal of its own."""

    def __init__(self) -> None:
        self.told = ""
        self._ours, theirs = pty.openpty()
        self.modes = termios.tcgetattr(self._ours)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command(None)], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)

    def press(self, keys: str) -> None:
        """Press *keys*."""
        os.write(self._ours, keys.encode())

    def until(self, words: str) -> str:
        """Return what was told since the last call, once it has *words* in it."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.told:
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select([self._ours], [], [], max(left_s, 0.0))
            assert ready, f"never told: {words}\n{self.told}"
            self.told += os.read(self._ours, 65536).decode()
        told, _, self.told = self.told.partition(words)
        return told + words

    def now(self) -> list[object]:
        """Return the modes of the terminal."""
        return list(termios.tcgetattr(self._ours))

    def close(self) -> None:
        """Hang up."""
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    with ended(terminal.process):
        yield terminal
    terminal.close()


def test_keys_break_and_mend_and_the_terminal_is_as_before(terminal: Terminal):
    found = DIRECTORY.search(terminal.until("/site.yaml"))
    assert found is not None
    directory = Path(found[1])
    assert directory.is_dir()
    terminal.until(say("keys"))
    terminal.until("now: traffic by wan1 | wan1 ok | wan2 ok")
    assert terminal.now() != terminal.modes

    terminal.press("h")
    terminal.until(say("hq_dead"))
    terminal.until("traffic stays on wan1: the cause is headquarters")
    terminal.press("h")
    terminal.until(say("hq_dead_end"))
    terminal.press("m")
    terminal.until("incident I2: the mains")
    terminal.press("s")
    terminal.until("Equipment")
    terminal.press("x")
    terminal.until(say("keys"))
    terminal.press("q")

    terminal.until("shown: " + say("shown_mains"))
    assert terminal.process.wait(PATIENCE_S) == 0
    assert terminal.now() == terminal.modes
    assert not directory.exists()


def test_a_broken_line_moves_traffic_and_a_signal_ends_it_in_order(terminal: Terminal):
    found = DIRECTORY.search(terminal.until("/site.yaml"))
    assert found is not None
    terminal.until("now: traffic by wan1 | wan1 ok | wan2 ok")

    terminal.press("1")
    terminal.until("R1 proven by traffic: headquarters answers over wan2")
    terminal.until("now: traffic by wan2")
    terminal.press("\x03")  # Ctrl-C

    terminal.until("shown: wan1 broke and traffic moved to wan2, proven after")
    assert terminal.process.wait(PATIENCE_S) == 0
    assert terminal.now() == terminal.modes
    assert not Path(found[1]).exists()


# ---------------------------------------------------------------- words


def test_every_key_breaks_something_that_exists_and_has_words_for_both_ways():
    assert set(KEYS.values()) <= FAULTS.keys()
    assert {word for fault in KEYS.values() for word in (fault, f"{fault}_end")} <= TEXTS.keys()


def test_a_live_screen_keeps_the_status_last_and_cuts_it_to_the_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "30")
    out = StringIO()
    screen = Screen(out, is_live=True)

    screen.show("now: " + "x" * 100)
    screen.say("something happened")

    assert out.getvalue().splitlines()[-1] == "now: " + "x" * 24


def test_without_a_terminal_the_status_is_told_when_it_changes_and_without_control_characters():
    out = StringIO()
    screen = Screen(out, is_live=False)
    for status in ("good", "good", "bad"):
        screen.show(status)
    screen.close()

    assert out.getvalue() == "good\nbad\n"


# ---------------------------------------------------------------- helpers


def command(seconds: float | None) -> list[str]:
    """Return the command that runs the demo."""
    return [sys.executable, "-c", PROGRAM.format(seconds=seconds)]


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Give *process*, and leave none behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
