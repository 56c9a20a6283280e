"""Measure what a branch feels: how long a command takes and how much memory it holds, each against its limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGEOVER = str(Path(sys.executable).with_name("changeover"))
MIB_PER_KIB = 1 / 1024
DEMO_S = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One command with the limits that it keeps; the best of *repeats* counts, for the machine may be busy."""

    arguments: tuple[str, ...]
    elapsed_s_max: float
    rss_mib_max: float
    repeats: int = 3


CASES = (
    Case(("--version",), elapsed_s_max=1.0, rss_mib_max=56),
    Case(("check", "-c", "config.example.yaml"), elapsed_s_max=1.0, rss_mib_max=56),
    # The demo holds the agent and its stand-ins in one process; the agent alone stays within 56 MiB.
    Case(("demo", "--for", str(DEMO_S)), elapsed_s_max=DEMO_S + 5, rss_mib_max=80, repeats=1),
)


def measure(case: Case) -> tuple[float, float, float]:
    """Run *case* once and return elapsed seconds, processor seconds and peak memory in MiB."""
    started_s = time.monotonic()
    process = subprocess.Popen(
        [CHANGEOVER, *case.arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"changeover {' '.join(case.arguments)}: exit code {process.returncode}")
    return time.monotonic() - started_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * MIB_PER_KIB


def main() -> int:
    """Print one row per case; return 1 if one is over a limit."""
    print(f"{'command':<32} {'elapsed s':>16} {'processor s':>12} {'peak MiB':>14}")
    is_over = False
    for case in CASES:
        elapsed_s, processor_s, rss_mib = (
            min(column) for column in zip(*(measure(case) for _ in range(case.repeats)), strict=True)
        )
        print(
            f"{' '.join(case.arguments):<32} {f'{elapsed_s:.2f} of {case.elapsed_s_max:g}':>16} {processor_s:>12.2f}"
            f" {f'{rss_mib:.0f} of {case.rss_mib_max:g}':>14}"
        )
        is_over = is_over or elapsed_s > case.elapsed_s_max or rss_mib > case.rss_mib_max
    return 1 if is_over else 0


if __name__ == "__main__":
    sys.exit(main())
