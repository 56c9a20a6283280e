"""`init` and `doctor` on a branch made of network namespaces: real routes, real lines, echoes by ICMP. Needs root."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.peers.netns import HQ, HQ_SERVICE, LINES, TIMEOUT_S, Lab

ROOT: Final = Path(__file__).resolve().parents[2]
# The NUT server's usual port; the lab's namespace has it to itself.
NUT_SERVER: Final = """
import asyncio
from drills.simsite.nut_server import SimNutServer

async def main():
    server = SimNutServer("127.0.0.1", 3493)
    server.ups = {"su700": {"ups.status": "OL", "ups.load": "20", "battery.charge": "100", "battery.runtime": "1800"}}
    await server.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
NO_RIGHTS: Final = ("setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-net_raw,-net_admin")


class Branch:
    """The branch of a lab, on which the command line is used as a person would."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.site = folder / "site.yaml"

    def start_nut(self) -> None:
        """Start a NUT server, and wait until it takes connections."""
        self.start("branch", NUT_SERVER)

    def start(self, space: str, program: str) -> None:
        """Start *program*, and wait until it says that it is ready."""
        process = self.lab.start(space, "env", f"PYTHONPATH={ROOT}", sys.executable, "-c", program)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def changeover(self, *words: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command and return how it ended."""
        command = (*self.lab.inside("branch"), *before, sys.executable, "-m", "agent", *map(str, words))
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    def init(self, *words: object) -> str:
        """Write the site file; let its state stand in the test's own folder; return its text."""
        ended = self.changeover("init", "--output", self.site, *words)
        assert ended.returncode == 0, ended.stderr
        server = f"server: {{socket: {self.folder}/control.sock, state_dir: {self.folder}/state}}\n"
        self.site.write_text(self.site.read_text(encoding="utf-8") + server, encoding="utf-8")
        return self.site.read_text(encoding="utf-8")

    def rewrite(self, changes: Mapping[str, str]) -> None:
        """Put other words into the site file, each in place of one that is there."""
        text = self.site.read_text(encoding="utf-8")
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        self.site.write_text(text, encoding="utf-8")

    def doctor(self, code: int, before: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        """Return what the doctor finds, by what it is about; it must end with *code*."""
        ended = self.changeover("doctor", "-c", self.site, "--json", before=before)
        assert ended.returncode == code, ended.stdout + ended.stderr
        found = json.loads(ended.stdout)
        assert found["well"] is (code == 0)
        return {one["about"]: one for one in found["findings"]}


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    with Lab() as lab:
        yield Branch(lab, tmp_path)


def wrong(found: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return what is wrong."""
    return {about for about, one in found.items() if one["verdict"] == "wrong"}


def test_the_first_site_file_is_taken_by_check_and_names_what_the_machine_has(branch: Branch):
    branch.start_nut()
    text = branch.init()

    checked = branch.changeover("check", "-c", branch.site, "--json")

    assert checked.returncode == 0, checked.stderr
    coverage = json.loads(checked.stdout)["coverage"]
    assert {"su700", "wan1", "wan2", "this-host"} <= {one["equipment"] for one in coverage["watched"]}
    assert "wan1 has no hq target: whether it reaches headquarters is not seen" in coverage["gaps"]
    for line in LINES.values():
        assert f"interface: {line.interface}\n    gateway: {line.gateway}\n" in text


def test_without_a_nut_server_and_without_routes_the_file_says_so_and_is_taken(branch: Branch):
    for line in LINES.values():
        branch.lab.run("branch", "ip", "route", "delete", "default", "via", line.gateway)
    text = branch.init()

    assert "the NUT server at 127.0.0.1:3493 could not be asked (refused" in text
    assert "this machine has no default route that could be one" in text
    assert branch.changeover("check", "-c", branch.site).returncode == 0
    assert branch.doctor(0)


def test_a_right_site_is_well(branch: Branch):
    branch.start_nut()
    listen = f"import socket; s = socket.create_server(('{HQ_SERVICE}', 443)); print('ready', flush=True); input()"
    branch.start("hq", listen)
    branch.init("--hq", HQ)
    branch.rewrite(
        {"mode: watch ": "mode: auto ", f"      hq: {HQ}\n": f'      hq: {HQ}\n      hq_service: "{HQ_SERVICE}:443"\n'}
    )
    for line in LINES.values():
        text = branch.site.read_text(encoding="utf-8")
        branch.site.write_text(text.replace("# edge: ADDRESS", f"edge: {line.edge}", 1), encoding="utf-8")

    found = branch.doctor(0)

    assert {one["verdict"] for one in found.values()} == {"ok"}, found
    assert found["path"]["what"] == f"{HQ} answers, by wan1"
    assert found["echo"]["what"] == "by raw socket"
    assert {f"{wan} {rung}" for wan in ("wan1", "wan2") for rung in ("cpe", "edge", "hq", "hq_service")} <= found.keys()
    assert {"su700 status", "route", "route wan2", "route default", "conntrack"} <= found.keys()


def test_each_mistake_of_a_wrong_site_has_its_cure(branch: Branch):
    branch.init("--hq", HQ)
    branch.rewrite({"interface: wan2": "interface: wan9", "mode: watch ": "mode: auto "})
    line = LINES["isp1"]
    branch.lab.run("branch", "ip", "route", "add", "default", "via", line.gateway, "dev", "wan1", "metric", "0")
    found = branch.doctor(1)

    assert wrong(found) == {"wan2", "route default"}
    assert found["wan2"]["what"] == "there is no interface wan9"
    assert "wan2" in found["wan2"]["cure"]
    assert "nothing can be better than metric 0" in found["route default"]["what"]


@pytest.mark.parametrize(
    ("command", "what", "cure"),
    [
        ("ip link set wan2 down", "wan2 is down", "ip link set wan2 up"),
        ("ip address flush dev wan2", "wan2 has no IPv4 address", "provider"),
        ("ip route delete default via 198.18.2.1", "on the wire itself, not by 198.18.2.1", "dev wan2 metric 200"),
    ],
)
def test_a_line_whose_own_end_is_wrong_is_told_once(branch: Branch, command: str, what: str, cure: str):
    branch.init("--hq", HQ)
    branch.lab.run("branch", *command.split())

    found = branch.doctor(1)

    assert wrong(found) >= {"wan2"}
    assert what in found["wan2"]["what"]
    assert cure in found["wan2"]["cure"]
    assert "wan2 cpe" not in found
    assert found["wan1 hq"]["verdict"] == "ok"


def test_a_dead_carrier_is_told(branch: Branch):
    branch.init("--hq", HQ)
    branch.lab.link_down("isp2")

    assert branch.doctor(1)["wan2"]["what"] == "wan2 has no carrier"


def test_a_line_that_is_dead_behind_its_box_has_a_command_to_try(branch: Branch):
    branch.init("--hq", HQ)
    branch.lab.blackhole("isp2")

    found = branch.doctor(1)

    assert wrong(found) == {"wan2 hq"}
    assert found["wan2 cpe"]["verdict"] == "ok"
    assert f"ping -I wan2 {HQ}" in found["wan2 hq"]["cure"]


def test_a_gateway_beside_the_network_of_its_interface_is_wrong(branch: Branch):
    branch.init("--hq", HQ)
    branch.rewrite({"gateway: 198.18.2.1": "gateway: 198.18.3.1"})

    found = branch.doctor(1)

    assert wrong(found) == {"wan2", "route wan2"}
    assert "gateway 198.18.3.1 is on no network of wan2 (198.18.2.0/24)" in found["route wan2"]["what"]


def test_without_rights_echo_and_route_name_what_they_need(branch: Branch):
    branch.init("--hq", HQ)
    branch.rewrite({"mode: watch ": "mode: auto "})
    branch.lab.run("branch", "sysctl", "-q", "-w", "net.ipv4.ping_group_range=1 0")

    found = branch.doctor(1, before=NO_RIGHTS)

    assert {"echo", "route", "path"} <= wrong(found)
    assert "CAP_NET_RAW" in found["echo"]["cure"]
    assert "CAP_NET_ADMIN" in found["route"]["cure"]


def test_a_ping_socket_is_enough_for_a_site_that_watches(branch: Branch):
    branch.init("--hq", HQ)
    branch.lab.run("branch", "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 0")

    found = branch.doctor(0, before=NO_RIGHTS)

    assert "ping socket" in found["echo"]["what"]
    assert found["route"]["verdict"] == "note"


def test_what_is_only_good_to_know_is_noted(tmp_path: Path):
    with Lab(ignores_dead_routes=False) as lab:
        branch = Branch(lab, tmp_path)
        branch.init("--hq", HQ)

        found = branch.doctor(0)

    assert found["ignore_routes_with_linkdown"]["verdict"] == "note"
    assert "net.ipv4.conf.all.ignore_routes_with_linkdown=1" in found["ignore_routes_with_linkdown"]["cure"]
