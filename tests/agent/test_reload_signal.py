"""SIGHUP to the agent as it is installed: `changeover run` as a process of its own, on a site without privileges."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.clock import boot_s
from agent.control_client import NobodyAnswers, request

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
SITE = """
site: {{id: b1}}
equipment:
  this-host: {{kind: host, period: 1s, disks: [{disks}]}}
server: {{socket: {folder}/control.sock, metrics: "127.0.0.1:0", state_dir: {folder}/state}}
"""


def write_site(folder: Path, disks: str = "/") -> Path:
    path = folder / "site.yaml"
    path.write_text(SITE.format(folder=folder, disks=disks), encoding="utf-8")
    return path


@contextmanager
def agent(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent for the site file in *folder* until left; its words to systemd come to `notify` there."""
    environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
    command = (sys.executable, "-m", "agent", "run", "-c", str(folder / "site.yaml"))
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            wait(folder, lambda found: found["agent"]["running"])
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == 0, (folder / "agent.log").read_text(encoding="utf-8")


def wait(folder: Path, is_it: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the first status for which *is_it* holds."""
    deadline = boot_s() + PATIENCE_S
    while boot_s() < deadline:
        try:
            found: dict[str, Any] = request(folder / "control.sock", "status")
            if is_it(found):
                return found
        except NobodyAnswers:
            pass
        threading.Event().wait(0.05)
    raise AssertionError((folder / "agent.log").read_text(encoding="utf-8"))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Stand in for systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(str(tmp_path / "notify"))
        endpoint.settimeout(PATIENCE_S)
        yield endpoint


def heard_until(manager: socket.socket, word: str) -> list[str]:
    """Return all words up to *word*."""
    words: list[str] = []
    while word not in words:
        words += manager.recv(4096).decode().splitlines()
    return words


def test_hang_up_takes_the_new_file_and_tells_systemd_when_it_has(tmp_path, manager):
    write_site(tmp_path)
    with agent(tmp_path) as process:
        heard_until(manager, "READY=1")
        write_site(tmp_path, "/, /tmp")

        process.send_signal(signal.SIGHUP)
        found = wait(tmp_path, lambda status: status["reload"] is not None)
        words = heard_until(manager, "READY=1")

    assert found["reload"]["ok"]
    assert found["reload"]["owner"] == "SIGHUP"
    assert words.index("RELOADING=1") < words.index("READY=1")


def test_hang_up_with_a_wrong_file_changes_nothing(tmp_path, manager):
    write_site(tmp_path)
    with agent(tmp_path) as process:
        (tmp_path / "site.yaml").write_text("site: {id: b1}\nequipment: {this-host: {kind: hots}}\n", encoding="utf-8")

        process.send_signal(signal.SIGHUP)
        found = wait(tmp_path, lambda status: status["reload"] is not None)

        assert found["reload"]["ok"] is False
        assert found["reload"]["problems"] != []
        assert "this-host" in found["equipment"]
    log = (tmp_path / "agent.log").read_text(encoding="utf-8")
    assert all(problem in log for problem in found["reload"]["problems"])


def test_the_command_says_what_has_changed_and_why_a_file_is_not_taken(tmp_path, manager):
    path = write_site(tmp_path)
    words = ["reload", "-c", str(path), "--socket", str(tmp_path / "control.sock")]
    with agent(tmp_path):
        path.write_text(path.read_text(encoding="utf-8") + "alarms: {this-host.cpu_high: off}\n", encoding="utf-8")
        done = CliRunner().invoke(main, words)
        same = CliRunner().invoke(main, [*words, "--json"])
        shown = CliRunner().invoke(main, ["status", *words[1:]])
        path.write_text(path.read_text(encoding="utf-8").replace("period: 1s", "period: 1"), encoding="utf-8")
        refused = CliRunner().invoke(main, words)
        told = CliRunner().invoke(main, ["status", *words[1:]])

    assert (done.exit_code, done.stdout) == (0, "taken\nNO LONGER COVERED:\n  alarm this-host.cpu_high\n")
    assert (same.exit_code, json.loads(same.stdout)["no_longer_covered"]) == (0, [])
    assert "Site file:" not in shown.stdout
    assert refused.exit_code == 2
    assert "equipment.this-host.period: " in refused.stderr
    assert refused.stderr.endswith("not taken: the site file before is in force\n")
    assert "Site file: NOT TAKEN at " in told.stdout


def test_without_an_agent_nothing_is_done(tmp_path):
    result = CliRunner().invoke(main, ["reload", "-c", str(write_site(tmp_path))])

    assert result.exit_code == 1
    assert "nothing was done" in result.stderr


def test_passwords_that_others_may_read_end_the_start_as_a_wrong_site_file_does(tmp_path):
    path = write_site(tmp_path)
    (tmp_path / "passwords").write_text("", encoding="utf-8")
    (tmp_path / "passwords").chmod(0o644)
    text = path.read_text(encoding="utf-8").replace(
        "metrics:", f"metrics_password_file: {tmp_path}/passwords, metrics:"
    )
    path.write_text(text, encoding="utf-8")

    command = (sys.executable, "-m", "agent", "run", "-c", str(path))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 2
    assert f"chmod 0600 {tmp_path}/passwords" in done.stderr
    assert "Traceback" not in done.stderr
