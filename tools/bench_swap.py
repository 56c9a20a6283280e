"""Measure a swap as the branch's traffic feels it: a silent blackhole on the primary line, profile fast. Needs root."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.clock import boot_s
from tests.peers.agent_process import AgentProcess
from tests.peers.echo_traffic import Traffic
from tests.peers.netns import LINES, Lab

RUNS: Final = 5
OUTAGE_MS_MAX: Final = 300.0
PRIMARY: Final = LINES["isp1"].address
STANDBY: Final = LINES["isp2"].address


def swap(lab: Lab, traffic: Traffic, agent: AgentProcess) -> tuple[float, float, int]:
    """Return the outage in milliseconds, the way home after the fault's end in seconds, and what was lost on that way."""
    began_at = boot_s()
    lab.blackhole("isp1")
    moved_at = traffic.wait_by(STANDBY, began_at).sent_at
    agent.wait("on the standby line", lambda status: status["arrangements"])
    lab.clear()
    cleared_at = boot_s()
    back_at = traffic.wait_by(PRIMARY, cleared_at).sent_at
    agent.wait("home again", lambda status: not status["arrangements"])
    lost = traffic.lost(cleared_at, boot_s())
    return traffic.outage(began_at, moved_at).length_s * 1000, back_at - cleared_at, lost


def spread(values: list[float], digits: int) -> str:
    """Return median (least-most) of *values*."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> int:
    """Print what was measured; return 1 when the median outage is over its limit or anything was lost on the way home."""
    with Lab() as lab, tempfile.TemporaryDirectory() as directory, AgentProcess(lab, Path(directory)) as agent:
        traffic = Traffic(lab)
        process = psutil.Process(agent.pid)
        process.cpu_percent()
        runs = [swap(lab, traffic, agent) for _ in range(RUNS)]
        processor_percent, rss_mib = process.cpu_percent(), process.memory_info().rss / 2**20
    outages_ms, ways_s, losses = (list(column) for column in zip(*runs, strict=True))
    is_over = statistics.median(outages_ms) > OUTAGE_MS_MAX or sum(losses) > 0
    print(f"{'silent blackhole, fast, ' + str(RUNS) + ' runs':<44} {'limit':>8}")
    print(f"{'outage ms, median (least-most)':<32} {spread(outages_ms, 0):>18} {OUTAGE_MS_MAX:>10.0f}")
    print(f"{'way home s, good for 3 s asked':<32} {spread(ways_s, 1):>18}")
    print(f"{'echoes lost on the way home':<32} {sum(losses):>18} {0:>10}")
    print(f"{'processor % of a core':<32} {processor_percent:>18.1f}")
    print(f"{'resident MiB':<32} {rss_mib:>18.0f}")
    return 1 if is_over else 0


if __name__ == "__main__":
    sys.exit(main())
