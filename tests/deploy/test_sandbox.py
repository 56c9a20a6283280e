"""The agent within the limits of its unit: it sees its host, moves the traffic, and can do nothing else. Needs root."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.peers.agent_process import AgentProcess, site_text
from tests.peers.netns import LINES, Lab

UNIT: Final = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "changeover.service"
SANDBOX: Final = Path(__file__).with_name("sandbox.py")
TIMEOUT_S: Final = 30.0


def within(directory: Path) -> tuple[str, ...]:
    """Return the words that run a command within the unit's limits, with *directory* its own."""
    return (sys.executable, str(SANDBOX), str(UNIT), str(directory))


class SandboxedLab:
    """The lab as an agent sees it that runs within the unit's limits."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory

    def inside(self, space: str) -> tuple[str, ...]:
        return (*self._lab.inside(space), *within(self._directory))


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory whose parents are open to all, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="changeover-") as folder:
        yield Path(folder)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_the_agent_moves_the_traffic_and_back_within_the_limits_of_its_unit(lab, own):
    site = site_text(own).replace("equipment:\n", "equipment:\n  this-host: {kind: host}\n")
    with AgentProcess(SandboxedLab(lab, own), own, site) as agent:
        host = agent.wait("the host", lambda status: status["equipment"]["this-host"]["points"]["cpu_ratio"]["value"])
        lab.blackhole("isp1")
        agent.wait("the swap", lambda status: status["arrangements"])
        routes = lab.run("branch", "ip", "route", "get", "203.0.113.1")
        lab.reset()
        agent.wait("the return", lambda status: status["runs"] and not status["arrangements"])

        assert LINES["isp2"].interface in routes
        assert host["equipment"]["this-host"]["points"]["memory_ratio"]["value"] > 0
        assert agent.stop() == 0
        assert "Operation not permitted" not in agent.log


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        ("open('/var/tmp/changeover', 'w')", "Read-only file system"),
        ("open('/proc/sys/net/ipv4/ip_forward', 'w')", "Read-only file system"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "Address family not supported"),
        ("mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)", "Operation not permitted"),
        ("os.chown(OWN, 0, 0)", "Operation not permitted"),
        ("os.setuid(0)", "Operation not permitted"),
        ("subprocess.run([OWN + '/program'])", "Permission denied"),
        ("subprocess.run(['/usr/bin/unshare', '--user', 'true'], check=True)", "returned non-zero exit status"),
        ("os.kill(1, 0)", "Operation not permitted"),
    ],
)
def test_what_the_agent_does_not_need_is_refused(own, attempt, refusal):
    program = own / "program"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    python = f"import mmap, os, socket, subprocess\nOWN = {str(own)!r}\n{attempt}"

    ended = subprocess.run(
        (*within(own), sys.executable, "-c", python),
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert ended.returncode == 1
    assert refusal in ended.stderr.splitlines()[-1]
