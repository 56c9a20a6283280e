"""
Run line probes, and the path probe, and print each observation as one line of JSON.

`python -m tests.peers.line_runner SITE`, where SITE is JSON: {"lines": {NAME: keys of LineConfig}, "path": keys of
PathConfig or null}. A name on standard input makes that probe look.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from agent.clock import SystemClock
from agent.core.model import Observation
from agent.ports import ProbeContext
from probes import line, path


def tell(observations: Sequence[Observation]) -> None:
    """Print *observations*, each on its own line."""
    for observation in observations:
        sys.stdout.write(json.dumps(asdict(observation)) + "\n")
    sys.stdout.flush()


async def run(site: dict[str, Any]) -> None:
    """Run the probes of *site* until killed."""
    configs = {name: line.LineConfig(**keys) for name, keys in site["lines"].items()}
    context = ProbeContext(SystemClock(), configs)
    probes: dict[str, Any] = {name: line.make(name, config, context) for name, config in configs.items()}
    if site.get("path"):
        probes["path"] = path.make("path", path.PathConfig(**site["path"]), context)

    def heed() -> None:
        name = sys.stdin.readline().strip()
        if name:
            probes[name].look()
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin)

    asyncio.get_running_loop().add_reader(sys.stdin, heed)
    async with asyncio.TaskGroup() as tasks:
        for probe in probes.values():
            tasks.create_task(probe.run(tell))


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
