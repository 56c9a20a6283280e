"""
`kill -9` with each record of a swap as the last durable one, in a lab with real routes, and a normal start after it.

The agent is told to look first, to end the run rightly and to change no route twice: the kernel's own report of route
changes and the executor's own record are the witnesses. Needs root.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from agent.clock import boot_s
from agent.runtime.journal_file import connect_reading, read_rows
from agent.runtime.ledger import RowKind, decoded
from tests.peers.agent_process import ROOT, AgentProcess, Plain
from tests.peers.netns import Lab

COURSE: Final = (
    *("RunOpened", "Spent", "StepIntended", "StepSent"),
    *("StepResulted", "StepVerified", "ArrangementEntered", "RunEnded"),
)
OURS: Final = "default via 198.18.2.1 dev wan2 proto 193"
PATIENCE_S: Final = 10.0


class RouteWatch:
    """What the kernel reports of the branch's routes while this is entered, a line for each change."""

    def __init__(self, lab: Lab, path: Path) -> None:
        self._lab = lab
        self._path = path
        self._marks = 0

    def __enter__(self) -> RouteWatch:
        self._process = self._lab.start("branch", "sh", "-c", f"exec ip -4 monitor route > {self._path}")
        self.changes()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def changes(self) -> list[str]:
        """Return the changes of default routes so far. A route of our own, put in and out, tells that none is missing."""
        self._marks += 1
        mark = f"198.18.{100 + self._marks}.0/24"
        deadline = boot_s() + PATIENCE_S
        while not self._path.exists() or mark not in self._path.read_text(encoding="utf-8"):
            assert boot_s() < deadline, "the kernel's report does not come"
            for verb in ("add", "delete"):
                self._lab.run("branch", "ip", "route", verb, mark, "dev", "lo")
            threading.Event().wait(0.02)
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return [" ".join(line.split()) for line in lines if "default" in line]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def journalled(directory: Path, *kinds: str) -> list[dict[str, Any]]:
    """Return the records of *kinds* in the journal, oldest first, from a process that is down or up."""
    with closing(connect_reading(directory / "state" / "journal.db")) as connection:
        rows = [json.loads(entry.body) for entry in read_rows(connection, 1) if entry is not None]
    return [row for row in rows if row["body"]["kind"] in kinds]


def performed(directory: Path) -> list[str]:
    """Return the keys of the commands that the executor has accepted, oldest first, doubles too."""
    with closing(sqlite3.connect(f"file:{directory}/state/executor.db?mode=ro", uri=True)) as connection:
        rows = [decoded(body) for (body,) in connection.execute("SELECT body FROM command ORDER BY seq")]
    return [row.key for row in rows if row.kind is RowKind.ACCEPTED]


def ran(status: Plain) -> bool:
    """Tell whether a run has ended and the site is on its standby line."""
    return bool(status["arrangements"]) and bool(status["runs"]) and status["runs"][-1]["state"] == "done"


@pytest.mark.parametrize("kind", COURSE)
def test_killed_with_this_record_durable_it_ends_the_swap_and_changes_the_route_once(
    lab: Lab, tmp_path: Path, kind: str
) -> None:
    agent = AgentProcess(lab, tmp_path)
    try:
        with RouteWatch(lab, tmp_path / "routes.log") as watch:
            agent.start(("tests.peers.crashing_agent", "--after", kind))
            lab.blackhole("isp1")
            assert agent.wait_end() == -signal.SIGKILL
            assert journalled(tmp_path, *COURSE)[-1]["body"]["kind"] == kind
            (before,) = journalled(tmp_path, "IncidentOpened")

            agent.start(until=lambda _: True)
            status = agent.wait("the swap ends rightly", ran)
            changes = watch.changes()
        stopped = agent.stop()

        assert [line.split(" metric")[0] for line in changes] == [OURS]
        assert [route for route in lab.routes() if "proto 193" in route] == [f"{OURS} metric 90"]
        # Where nobody knew whether it had been performed, and the look said that it had not, it was sent again, once.
        assert performed(tmp_path) == ["R1.0.1"] * (2 if was_resent(tmp_path) else 1)
        assert [run["state"] for run in status["runs"]] == ["done"]
        assert [one["id"] for one in status["incidents"]] == [before["body"]["id"]] == ["I1"]
        assert [one["at"] for one in journalled(tmp_path, "IncidentOpened")] == [before["at"]]
        assert_looked_first(tmp_path, was_under_way=kind in COURSE[COURSE.index("StepIntended") : -1])
        assert stopped == 0
        verified = subprocess.run(
            (sys.executable, "-m", "agent", "journal", "verify", "-c", str(tmp_path / "site.yaml")),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert (verified.returncode, verified.stderr) == (0, "")
        assert "sound" in verified.stdout
    finally:
        agent.kill()
        lab.reset()


def was_resent(directory: Path) -> bool:
    """Tell whether a command was sent a second time; that takes an acceptance of which no result is known."""
    intents = journalled(directory, "StepIntended")
    return any(row["body"]["request"]["resend"] for row in intents) and len(performed(directory)) > 1


def assert_looked_first(directory: Path, *, was_under_way: bool) -> None:
    """Assert that after the second start the first thing recorded of an interrupted run is that it looks."""
    rows = journalled(directory, "AgentStarted", "RunLookedAgain", *COURSE)
    second = max(number for number, row in enumerate(rows) if row["body"]["kind"] == "AgentStarted")
    after = [row["body"]["kind"] for row in rows[second + 1 :]]
    if was_under_way:
        assert after[0] == "RunLookedAgain", after
