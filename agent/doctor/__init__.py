"""The doctor: tries once what the agent will need, and says of each thing how it stands and what the cure is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.app import Surroundings
from agent.config import Config
from agent.doctor.finding import Finding, Kernel, Patient, Verdict, running_agent, wrong
from agent.doctor.host import (
    check_clock,
    check_disk,
    check_echo,
    check_metrics,
    check_running,
    check_socket,
    check_state_dir,
)
from agent.doctor.probes import try_probes
from agent.doctor.route import check_conntrack, check_linkdown, check_route

__all__ = ["CHECKS", "Check", "Finding", "Kernel", "Verdict", "data", "examine", "is_well", "lines"]


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table: what is looked at, by what, and after how many seconds it is given up."""

    name: str
    ask: Callable[[Patient], Awaitable[Sequence[Finding]]]
    deadline_s: float


CHECKS: Final = (
    Check("agent", check_running, 1.0),
    Check("clock", check_clock, 1.0),
    Check("disk", check_disk, 1.0),
    Check("state directory", check_state_dir, 1.0),
    Check("socket", check_socket, 1.0),
    Check("metrics", check_metrics, 1.0),
    Check("echo", check_echo, 1.0),
    Check("probes", try_probes, 20.0),  # each probe has a deadline of its own below this one
    Check("route", check_route, 10.0),
    Check("conntrack", check_conntrack, 1.0),
    Check("ignore_routes_with_linkdown", check_linkdown, 1.0),
)


async def examine(config: Config, around: Surroundings, kernel: Kernel | None = None) -> list[Finding]:
    """Return all that was found, in the order of the table; every check runs at the same time."""
    patient = Patient(config, around, kernel or Kernel(), running_agent(config))
    groups = await asyncio.gather(*(within_its_time(check, patient) for check in CHECKS))
    return [finding for group in groups for finding in group]


async def within_its_time(check: Check, patient: Patient) -> Sequence[Finding]:
    """Return what *check* found, or that it did not end."""
    try:
        async with asyncio.timeout(check.deadline_s):
            return await check.ask(patient)
    except TimeoutError:
        return [wrong(check.name, f"no end within {check.deadline_s:g} s", "look what hangs on this machine")]
    except OSError as error:
        return [wrong(check.name, f"could not be looked at: {error}", "look what is wrong with this machine")]


def is_well(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing is wrong."""
    return all(finding.verdict is not Verdict.WRONG for finding in findings)


def lines(findings: Sequence[Finding]) -> list[str]:
    """Return the findings as text, one line each, and their sum."""
    count = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    total = f"{count[Verdict.OK]} ok, {count[Verdict.NOTE]} to note, {count[Verdict.WRONG]} wrong"
    return [*(finding.line() for finding in findings), total]


def data(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for JSON."""
    return {"well": is_well(findings), "findings": [finding.data() for finding in findings]}
