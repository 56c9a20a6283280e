"""
The journal of an agent that really ran: a flipped byte in any record, or in the log, is found by `changeover journal
verify`, and an agent that starts on it watches and does not act. A second agent on one state directory ends with 3.

No privilege is needed: the site is this machine and a UPS whose server does not exist.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.clock import boot_s
from agent.control_client import NobodyAnswers, request
from agent.runtime.journal import verify
from tests.fakes.journals import copied, flip

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 15.0
LOOK_S: Final = 0.05
HOLDS: Final = 12

SITE: Final = """
site: {{id: branch-01, agent: {{boot_guard: 0s}}}}
equipment:
  mains: {{kind: utility}}
  ups-a: {{kind: ups, fed_by: mains, ups: ups, port: {port}}}
  this-host: {{kind: host, fed_by: ups-a}}
alarms:
  ups-a.unreadable: {{yellow: {{on_delay: 1s}}}}
server: {{socket: {folder}/control.sock, metrics: "127.0.0.1:0", state_dir: {folder}/state}}
"""


class Program:
    """`changeover run` on a site of its own in *folder*."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.site = folder / "site.yaml"
        with socket.create_server(("127.0.0.1", 0)) as listening:  # closed again: nobody answers there
            port = listening.getsockname()[1]
        self.site.write_text(SITE.format(folder=folder, port=port), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> subprocess.Popen[bytes]:
        """Start it and return the process."""
        with (self.folder / "agent.log").open("ab") as log:
            command = (sys.executable, "-m", "agent", "run", "-c", str(self.site))
            return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = self.begin()
        self.until("it answers", lambda _: True)

    def end(self, number: signal.Signals) -> int:
        """End it by a signal and return its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code

    def close(self) -> None:
        """End it if it still runs."""
        if self._process is not None:
            self.end(signal.SIGKILL)

    def ask(self, verb: str, **words: Any) -> dict[str, Any]:
        """Ask it over its control socket."""
        return dict(request(self.folder / "control.sock", verb, **words))

    def until(self, what: str, is_it: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the first status for which *is_it* holds."""
        deadline = boot_s() + PATIENCE_S
        while boot_s() < deadline:
            with contextlib.suppress(NobodyAnswers):
                status = self.ask("status")
                if is_it(status):
                    return status
            threading.Event().wait(LOOK_S)
        raise AssertionError(f"never seen: {what}\n{self.log[-4000:]}")

    @property
    def log(self) -> str:
        """Return everything that it has said."""
        return (self.folder / "agent.log").read_text(encoding="utf-8")


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Give the program, not started; it is ended afterwards."""
    program = Program(tmp_path / "site")
    yield program
    program.close()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Return a program that has run, with people at work on it, and was killed: its records are in the log still."""
    program = Program(tmp_path_factory.mktemp("killed") / "site")
    try:
        program.start()
        program.until("an alarm", lambda status: status["incidents"])
        for number in range(HOLDS):
            program.ask("hold", reason=f"work {number}")
        program.ask("release")
    finally:
        program.end(signal.SIGKILL)
    return program


@pytest.fixture(scope="module")
def stopped(killed: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state directory of the same journal after a start and an orderly end: all is in the database."""
    folder = copied(killed.state, tmp_path_factory.mktemp("stopped") / "state")
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


def verdict(state: Path, site: Path) -> tuple[int, str]:
    """Return exit code and words of `changeover journal verify`."""
    result = CliRunner().invoke(main, ["journal", "verify", "-c", str(site), "--state-dir", str(state)])
    return result.exit_code, result.output


def parts(state: Path) -> list[bytes]:
    """Return body and digest of every record as they lie in the file."""
    with closing(sqlite3.connect(f"file:{state}/journal.db?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT CAST(body AS BLOB), digest FROM entries ORDER BY seq").fetchall()
    return [part for row in rows for part in row]


def test_a_flipped_byte_in_any_record_is_found(stopped: Path, killed: Program, tmp_path: Path) -> None:
    assert verdict(stopped, killed.site)[0] == 0
    raw = (stopped / "journal.db").read_bytes()
    found = parts(stopped)
    assert len(found) >= 2 * HOLDS
    copy = copied(stopped, tmp_path / "copy")
    for number, part in enumerate(found):
        position = raw.index(part) + (7 * number) % len(part)
        flip(copy / "journal.db", position, 1 << (number % 8))
        code, words = verdict(copy, killed.site)
        assert code == 1, f"byte {position}"
        assert "NOT SOUND" in words
        assert str(number // 2 + 1) in words  # the record, or the one behind it, is named
        flip(copy / "journal.db", position, 1 << (number % 8))
    assert verdict(copy, killed.site)[0] == 0


def test_a_flipped_byte_in_the_log_is_found(killed: Program, tmp_path: Path) -> None:
    log = (killed.state / "journal.db-wal").read_bytes()
    copy = copied(killed.state, tmp_path / "copy")
    assert verify(copy).problems == ()
    missed = []
    for position in range(0, len(log), 997):
        copied(killed.state, copy)
        flip(copy / "journal.db-wal", position, 1 << (position % 8))
        if not verify(copy).problems:
            missed.append(position)
    assert missed == []


@pytest.mark.parametrize("place", ["a record", "the log"])
def test_an_agent_that_starts_on_a_damaged_journal_watches_does_not_act_and_keeps_the_evidence(
    killed: Program, stopped: Path, program: Program, place: str
) -> None:
    source, file = (stopped, "journal.db") if place == "a record" else (killed.state, "journal.db-wal")
    copied(source, program.state)
    raw = (program.state / file).read_bytes()
    flip(program.state / file, raw.index(b"work 5") + 5)
    damaged = (program.state / file).read_bytes()

    program.start()
    status = program.until("a fresh point", lambda s: s["equipment"]["this-host"]["points"]["memory_ratio"]["value"])

    assert status["mode"] == "safe"
    assert status["acting"]["allowed"] is False
    assert "journal broken" in json.dumps(status["acting"]["why_not"])
    assert status["hold"]["owner"] == "changeover"
    kept = file.replace("journal.db", "journal.db.broken-1")
    assert (program.state / kept).read_bytes() == damaged
    program.until("what is wrong is still seen", lambda status: status["incidents"])
    assert program.end(signal.SIGTERM) == 0
    assert verdict(program.state, program.site)[0] == 0  # the new one
    program.start()
    assert program.until("the hold stays until a person ends it", lambda s: s["hold"])["mode"] in ("hold", "safe")


def test_a_second_agent_on_one_state_directory_ends_with_3_and_leaves_the_first_alone(program: Program) -> None:
    program.start()
    before = (program.state / "lock").read_text(encoding="utf-8")

    second = program.begin()

    assert second.wait(PATIENCE_S) == 3
    assert "belongs to another agent" in program.log
    assert str(json.loads(json.dumps(before)).split()[1]) in program.log
    assert program.ask("status")["site"]["id"] == "branch-01"
    assert (program.state / "lock").read_text(encoding="utf-8") == before
    assert program.end(signal.SIGTERM) == 0
    program.start()
