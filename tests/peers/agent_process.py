"""
The agent as it is installed: `changeover run -c site.yaml` as root inside the branch's namespace of a lab.

Each has a directory of its own for site file, state, control socket and log. It is spoken to over its control socket, as
the command line does.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from agent.clock import boot_s
from agent.control_client import NobodyAnswers, request
from agent.runtime.journal_verify import VerifyReport, verify
from tests.peers.netns import HQ, LINES, Lab

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 15.0
LOOK_S: Final = 0.05
LOG_CHARS: Final = 6000

Plain = dict[str, Any]


def site_text(
    directory: Path,
    *,
    profile: str = "fast",
    good_for: str = "3s",
    budget: str = "none",
    mode: str = "auto",
) -> str:
    """Return the site file of the branch in the lab: two lines, the way of its traffic, and what to do about them."""
    lines = [
        f"  {line.interface}: {{kind: line, role: {role}, profile: {profile}, interface: {line.interface},"
        f" gateway: {line.gateway}, targets: {{cpe: {line.gateway}, edge: {line.edge}, hq: {HQ}}}}}"
        for line, role in ((LINES["isp1"], "primary"), (LINES["isp2"], "standby"))
    ]
    state, control = directory / "state", directory / "control.sock"
    return "\n".join(
        (
            "site: {id: lab, agent: {boot_guard: 0s}}",
            "equipment:",
            *lines,
            "runbooks:",
            f"  standby: {{use: standby_line, mode: {mode}, bind: {{primary: wan1, standby: wan2}},",
            f"    limits: {{budget: {budget}, block: 0s}}, failback: {{good_for: {good_for}, per_day: 100}}}}",
            f"server: {{socket: {control}, metrics: '127.0.0.1:9478', state_dir: {state}}}",
            "",
        )
    )


class AgentProcess:
    """One agent process, as a context manager: ready when entered, stopped when left."""

    def __init__(self, lab: Lab, directory: Path, site: str | None = None) -> None:
        self._lab = lab
        self._directory = directory
        self._site = directory / "site.yaml"
        self._site.write_text(site_text(directory) if site is None else site, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def __enter__(self) -> AgentProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, program: Sequence[str] = ("agent",), until: Callable[[Plain], bool] | None = None) -> None:
        """Start it, as the module and words of *program*, and wait until every line is judged, or as *until* says."""
        self._started_at = boot_s()
        with (self._directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                (*self._lab.inside("branch"), sys.executable, "-m", *program, "run", "-c", str(self._site)),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait("the start", until or is_steady)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=PATIENCE_S)

    def wait_end(self) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=PATIENCE_S)

    @property
    def pid(self) -> int:
        """Return its process id; `ip netns exec` has become the agent itself."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Return everything that it has said."""
        return (self._directory / "agent.log").read_text(encoding="utf-8")

    def status(self) -> Plain:
        """Return what `changeover status --json` says."""
        return self._ask("status")

    def explain(self, name: str) -> Plain:
        """Return what `changeover explain NAME --json` says."""
        return self._ask("explain", id=name)

    def hold(self, reason: str) -> None:
        """Let no new command leave."""
        self._ask("hold", reason=reason)

    def release(self) -> None:
        """End the hold."""
        self._ask("release")

    def journal(self) -> VerifyReport:
        """Return what `changeover journal verify` finds; the agent may be up or down."""
        return verify(self._directory / "state")

    def wait(self, what: str, is_it: Callable[[Plain], Any], patience_s: float = PATIENCE_S) -> Plain:
        """Return the first status for which *is_it* holds; fail with what the agent says when none comes in time."""
        deadline = boot_s() + patience_s
        status: Plain = {}
        while boot_s() < deadline:
            assert self._process is not None
            code = self._process.poll()
            assert code is None, f"the agent has ended with {code} instead of: {what}\n{self.log[-LOG_CHARS:]}"
            with contextlib.suppress(NobodyAnswers):
                status = self.status()
                if is_it(status):
                    return status
            threading.Event().wait(LOOK_S)
        shown = {key: status.get(key) for key in ("hold", "acting", "arrangements", "alarms", "incidents", "runs")}
        text = json.dumps(shown, indent=1, ensure_ascii=False)
        raise AssertionError(f"never seen: {what}\n{text}\n{self.log[-LOG_CHARS:]}")

    def wait_age(self, age_s: float) -> None:
        """Wait until it has run for *age_s* seconds."""
        self.wait(f"{age_s} s of age", lambda _: boot_s() - self._started_at >= age_s)

    def _ask(self, verb: str, **words: Any) -> Plain:
        return dict(request(self._directory / "control.sock", verb, **words))


def is_steady(status: Plain) -> bool:
    """Tell whether both lines have a full window to headquarters without loss, and the traffic's own way is known."""
    points = {name: equipment["points"] for name, equipment in status["equipment"].items()}
    return points["path"]["line"]["value"] is not None and all(
        points[line]["hq.loss_ratio"]["value"] == 0 and points[line]["hq.lost_in_row"]["value"] == 0
        for line in ("wan1", "wan2")
    )
