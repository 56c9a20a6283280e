"""
A lab of network namespaces: a branch with two lines, an ISP on each, headquarters behind both. Needs root, ip and nft.

    branch wan1 192.0.2.2 --- 192.0.2.1 cust [isp1, edge 198.51.100.1] net --- [hq 203.0.113.1, service 203.0.113.2]
    branch wan2 198.18.2.2 -- 198.18.2.1 cust [isp2, edge 198.51.100.2] net -- [hq]         second site 203.0.113.129

The branch routes by wan1 (metric 100), then by wan2 (metric 200). The kernel's limits decide what faults there are: no
netem, so that loss is made by nft and delay is not made at all.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal

HQ: Final = "203.0.113.1"
HQ_SERVICE: Final = "203.0.113.2"
SECOND_SITE: Final = "203.0.113.129"
NUMBER: Final = itertools.count()
TIMEOUT_S: Final = 20.0

Isp = Literal["isp1", "isp2"]
Direction = Literal["both", "out", "in"]  # as the branch sees it


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the branch: its end, the ISP's box on its wire, the ISP's edge, and the link between ISP and hq."""

    interface: str
    address: str
    gateway: str
    network: str
    edge: str
    metric: int
    isp_side: str
    hq_side: str
    second_isp_side: str
    second_side: str


LINES: Final[dict[Isp, Line]] = {
    "isp1": Line(
        *("wan1", "192.0.2.2", "192.0.2.1", "192.0.2.0/24", "198.51.100.1", 100),
        *("198.18.11.1", "198.18.11.2", "198.18.21.1", "198.18.21.2"),
    ),
    "isp2": Line(
        *("wan2", "198.18.2.2", "198.18.2.1", "198.18.2.0/24", "198.51.100.2", 200),
        *("198.18.12.1", "198.18.12.2", "198.18.22.1", "198.18.22.2"),
    ),
}


class Lab:
    """
    The lab, as a context manager. Several may stand side by side; leaving one stops what runs in it and removes it.

    With *ignores_dead_routes* the branch's kernel passes over routes whose interface has no carrier.
    """

    def __init__(self, *, second_site: bool = False, ignores_dead_routes: bool = True) -> None:
        self._prefix = f"co{os.getpid()}-{next(NUMBER)}"
        self._has_second_site = second_site
        self._ignores_dead_routes = ignores_dead_routes
        self._spaces: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._rules: dict[str, list[tuple[str, str]]] = {}  # space -> (chain, rule)
        self._routes_at_start: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop every process that was started here and remove every namespace."""
        for process in self._processes:
            process.kill()
            process.communicate(timeout=TIMEOUT_S)
        self._processes.clear()
        while self._spaces:
            subprocess.run(("ip", "netns", "delete", self.name_of(self._spaces.pop())), check=False, timeout=TIMEOUT_S)

    # ---------------------------------------------------------------- looking and running

    def name_of(self, space: str) -> str:
        """Return the kernel's name for a namespace of this lab: branch, isp1, isp2, hq or site2."""
        return f"{self._prefix}-{space}"

    def inside(self, space: str) -> tuple[str, ...]:
        """Return the words that run a command in *space*."""
        return ("ip", "netns", "exec", self.name_of(space))

    def run(self, space: str, *command: str, text: str | None = None) -> str:
        """Run *command* in *space* with *text* on its input; return what it prints. A failure is an AssertionError."""
        ended = subprocess.run(
            (*self.inside(space), *command), input=text, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        assert ended.returncode == 0, f"{' '.join(command)} in {space}: {ended.stderr or ended.stdout}"
        return ended.stdout

    def start(self, space: str, *command: str) -> subprocess.Popen[str]:
        """Start *command* in *space*, its input and output as pipes; it is killed when the lab is left."""
        process = subprocess.Popen(
            (*self.inside(space), *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def routes(self, space: str = "branch") -> tuple[str, ...]:
        """Return the main routes of *space* as `ip route` words them, without the mark of a dead link."""
        lines = self.run(space, "ip", "-4", "route", "show", "table", "main").splitlines()
        words = ([word for word in line.split() if word not in ("linkdown", "dead")] for line in lines)
        return tuple(sorted(" ".join(line) for line in words))

    def packets(self, interface: str, direction: Literal["rx", "tx"]) -> int:
        """Return how many packets an interface of the branch has received or sent."""
        path = f"/sys/class/net/{interface}/statistics/{direction}_packets"
        return int(self.run("branch", "cat", path))

    # ---------------------------------------------------------------- faults

    def blackhole(self, isp: Isp, direction: Direction = "both", *, edge: bool = True) -> None:
        """
        Silence *isp* beyond its box on our wire, which goes on answering: links are up, nothing is forwarded.

        Without *edge* the edge answers as well, as it does when the fault lies in the provider's core.
        """
        self._fault(isp, direction, edge, "drop")

    def loss(self, isp: Isp, percent: int, direction: Direction = "both") -> None:
        """Drop *percent* of the packets that *isp* carries, at random, in each direction named."""
        self._fault(isp, direction, True, f"numgen random mod 100 < {percent} drop")

    def link_down(self, isp: Isp) -> None:
        """Take the far end of the line's wire down: our end loses its carrier at once."""
        self.run(isp, "ip", "link", "set", "cust", "down")

    def hq_dead(self) -> None:
        """Let headquarters answer nothing, on whatever line; its service neither."""
        self._add_rules("hq", [("input", f"ip daddr {{ {HQ}, {HQ_SERVICE} }} drop")])

    def end(self, isp: Isp) -> None:
        """End what silences *isp* or makes it lossy, and nothing else."""
        self.run(isp, "nft", "flush", "ruleset")
        self._rules.pop(isp, None)

    def clear(self) -> None:
        """End every fault, and put back each route that went with it. Routes that somebody has added stay."""
        for space in list(self._rules):
            self.run(space, "nft", "flush", "ruleset")
        self._rules.clear()
        for isp in LINES:
            self.run(isp, "ip", "link", "set", "cust", "up")
        for space, routes in self._routes_at_start.items():
            for route in sorted(set(routes) - set(self.routes(space)), key=lambda route: " via " in route):
                self.run(space, "ip", "route", "replace", *route.split())

    def reset(self) -> None:
        """`clear`, and remove from the branch each route that was not there at the start."""
        self.clear()
        for route in set(self.routes()) - set(self._routes_at_start["branch"]):
            self.run("branch", "ip", "route", "delete", *route.split())

    def _fault(self, isp: Isp, direction: Direction, edge: bool, verdict: str) -> None:
        address = LINES[isp].edge
        rules = []
        if direction in ("both", "out"):
            rules += [("forward", f'iifname "cust" {verdict}')]
            rules += [("input", f'iifname "cust" ip daddr {address} {verdict}')] if edge else []
        if direction in ("both", "in"):
            rules += [("forward", f'oifname "cust" {verdict}')]
            rules += [("output", f'oifname "cust" ip saddr {address} {verdict}')] if edge else []
        self._add_rules(isp, rules)

    def _add_rules(self, space: str, rules: Sequence[tuple[str, str]]) -> None:
        """Put *rules* beside those that stand, all at once."""
        self._rules.setdefault(space, []).extend(rules)
        chains = []
        for chain in ("input", "forward", "output"):
            body = "\n".join(rule for where, rule in self._rules[space] if where == chain)
            chains.append(f"chain {chain} {{\ntype filter hook {chain} priority 0; policy accept;\n{body}\n}}")
        script = "\n".join(["flush ruleset", "table ip faults {", *chains, "}", ""])
        self.run(space, "nft", "-f", "-", text=script)

    # ---------------------------------------------------------------- building

    def _build(self) -> None:
        spaces = ["branch", "isp1", "isp2", "hq", *(["site2"] if self._has_second_site else [])]
        for space in spaces:
            command = ("ip", "netns", "add", self.name_of(space))
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
            assert ended.returncode == 0, f"namespaces need root: {ended.stderr}"
            self._spaces.append(space)
            settings = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]
            if space == "branch" and self._ignores_dead_routes:
                settings += [f"net.ipv4.conf.{which}.ignore_routes_with_linkdown=1" for which in ("all", "default")]
            # IPv6 of its own accord sends packets that a test would count.
            settings += [f"net.ipv6.conf.{which}.disable_ipv6=1" for which in ("all", "default")]
            self.run(space, "sysctl", "-q", "-e", "-w", *settings)
            self.run(space, "ip", "link", "set", "lo", "up")
        self._address("hq", "lo", HQ, 32)
        self._address("hq", "lo", HQ_SERVICE, 32)
        if self._has_second_site:
            self._address("site2", "lo", SECOND_SITE, 32)
        for isp, line in LINES.items():
            self._build_line(isp, line)
        self._routes_at_start = {space: self.routes(space) for space in spaces}

    def _build_line(self, isp: Isp, line: Line) -> None:
        self._wire("branch", line.interface, line.address, isp, "cust", line.gateway, 24)
        self._wire(isp, "net", line.isp_side, "hq", isp, line.hq_side, 30)
        self._address(isp, "lo", line.edge, 32)
        self._route("branch", "default", line.gateway, line.interface, "metric", str(line.metric))
        self._route(isp, "203.0.113.0/25", line.hq_side, "net")
        self._route("hq", line.network, line.isp_side, isp)
        self._route("hq", line.edge, line.isp_side, isp)
        if self._has_second_site:
            self._wire(isp, "site2", line.second_isp_side, "site2", isp, line.second_side, 30)
            self._route(isp, "203.0.113.128/25", line.second_side, "site2")
            self._route("site2", line.network, line.second_isp_side, isp)

    def _wire(self, space: str, name: str, address: str, far: str, far_name: str, far_address: str, bits: int) -> None:
        """Lay a wire between two namespaces."""
        ends = ("netns", self.name_of(far), "type", "veth", "peer", "name", name, "netns", self.name_of(space))
        self.run(far, "ip", "link", "add", far_name, *ends)
        for where, end, own in ((space, name, address), (far, far_name, far_address)):
            self._address(where, end, own, bits)
            self.run(where, "ip", "link", "set", end, "up")

    def _address(self, space: str, interface: str, address: str, bits: int) -> None:
        self.run(space, "ip", "address", "add", f"{address}/{bits}", "dev", interface)

    def _route(self, space: str, destination: str, gateway: str, interface: str, *more: str) -> None:
        self.run(space, "ip", "route", "add", destination, "via", gateway, "dev", interface, *more)
