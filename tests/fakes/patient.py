"""A whole small branch on the loopback for the doctor, each part of which can be made sick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from agent import doctor
from agent.app import Surroundings
from agent.clock import SystemClock
from agent.config import Config, load
from agent.doctor import Finding, Kernel, Verdict, examine
from agent.doctor.finding import Patient
from agent.errors import ProbeFault
from agent.ports import Route
from drills.simsite.nut_server import SimNutServer
from drills.simsite.routes import MemoryRouteTable
from probes import PROBES
from runbooks import ACTIONS
from tests.fakes.far_end import FarEnd

UPS = {"ups.status": "OL", "ups.load": "20", "battery.charge": "100", "battery.runtime": "1800"}
GOOD = (Route("default", "127.0.11.1", "lo", 100, ours=False), Route("default", "127.0.12.1", "lo", 200, ours=False))
LO = IPv4Interface("127.0.0.11/8"), IPv4Interface("127.0.0.12/8")


@dataclass
class Site:
    """A branch on the loopback: a NUT server, two lines with a far end each, headquarters that tells its caller."""

    folder: Path
    nut: SimNutServer = field(default_factory=SimNutServer)
    wan1: FarEnd = field(default_factory=lambda: FarEnd("127.0.0.21"))
    wan2: FarEnd = field(default_factory=lambda: FarEnd("127.0.0.22"))
    source1: str = "127.0.0.11"
    caller: str | Exception = "127.0.0.11"  # whom headquarters sees on the path
    lost_first: int = 0
    mode: str = "auto"
    more: str = ""
    routes: Sequence[Route] = GOOD
    addresses: Mapping[str, tuple[IPv4Interface, ...]] = field(default_factory=lambda: {"lo": LO})
    programs: tuple[str, ...] = ("ip", "conntrack")
    capabilities: int = 1 << 12
    linkdown: str = "1"
    free_bytes: int = 1 << 40
    clock: Any = field(default_factory=SystemClock)

    def config(self) -> Config:
        host, port = self.nut.address
        text = f"""
site: {{id: b1}}
equipment:
  ups-a: {{kind: ups, ups: su700, host: {host}, port: {port}, reply_timeout: 200ms}}
  wan1: {{kind: line, role: primary, profile: fast, source: {self.source1}, gateway: 127.0.11.1,
    targets: {{cpe: "{self.wan1.target}", hq: "127.0.0.21:{self.wan1.port}"}}}}
  wan2: {{kind: line, role: standby, profile: fast, source: 127.0.0.12, gateway: 127.0.12.1,
    targets: {{cpe: "{self.wan2.target}", hq: "127.0.0.22:{self.wan2.port}"{self.more}}}}}
  path: {{kind: path, target: "127.0.0.21:{self.wan1.port}"}}
  this-host: {{kind: host, disks: [/]}}
runbooks:
  standby: {{use: standby_line, mode: {self.mode}}}
server: {{socket: {self.folder}/run/control.sock, state_dir: {self.folder}/state, metrics: "127.0.0.1:0"}}
"""
        path = self.folder / "site.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, PROBES, ACTIONS)

    def kernel(self) -> Kernel:
        proc = self.folder / "proc"
        for name in ("all", "eth1"):
            (proc / "sys/net/ipv4/conf" / name).mkdir(parents=True, exist_ok=True)
            (proc / "sys/net/ipv4/conf" / name / "ignore_routes_with_linkdown").write_text(f"{self.linkdown}\n")
        (proc / "self").mkdir(exist_ok=True)
        (proc / "self/status").write_text(f"Name:\tx\nCapEff:\t{self.capabilities:016x}\n", encoding="utf-8")
        return Kernel(
            proc,
            lambda: self.addresses,
            lambda name: f"/sbin/{name}" if name in self.programs else None,
            lambda place: self.free_bytes,
        )

    async def opener(self, target: str, within_s: float) -> str:
        if self.lost_first:
            self.lost_first -= 1
            raise ProbeFault("timed_out")
        if isinstance(self.caller, Exception):
            raise self.caller
        return self.caller

    def around(self) -> Surroundings:
        return Surroundings(self.clock, MemoryRouteTable(self.routes), self.opener)

    def patient(self) -> Patient:
        return Patient(self.config(), self.around(), self.kernel())

    async def examined(self) -> list[Finding]:
        return await examine(self.config(), self.around(), self.kernel())


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Site]:
    """Give *site* with its servers up."""
    site.nut.ups.setdefault("su700", dict(UPS))
    await site.nut.start()
    try:
        async with site.wan1, site.wan2:
            yield site
    finally:
        await site.nut.stop()


def about(found: Sequence[Finding], name: str) -> Finding:
    """Return the one finding about *name*."""
    fitting = [finding for finding in found if finding.about == name]
    assert len(fitting) == 1, doctor.lines(found)
    return fitting[0]


def is_wrong(finding: Finding, what: str, cure: str) -> None:
    """Assert that *finding* is wrong, says *what*, and has *cure*."""
    assert finding.verdict is Verdict.WRONG
    assert what in finding.what
    assert cure in finding.cure
