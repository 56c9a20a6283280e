"""The line probe and the path probe over real wires: namespaces, veth pairs, faults made by nft. Needs root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.clock import boot_s
from tests.peers.netns import HQ, HQ_SERVICE, LINES, SECOND_SITE, Lab

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 15.0
FAR = ("edge", "hq")

Seen = dict[str, Any]


def keys(isp: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of the line over *isp*."""
    line = LINES[isp]  # type: ignore[index]
    role = {"isp1": "primary", "isp2": "standby"}[isp]
    targets = {"cpe": line.gateway, "edge": line.edge, "hq": HQ}
    known = {"role": role, "profile": "fast", "interface": line.interface, "gateway": line.gateway, "targets": targets}
    return known | more


class Feed:
    """The probes in the branch's namespace, and everything that they have said."""

    def __init__(self, lab: Lab, site: dict[str, Any], *before: str) -> None:
        command = (sys.executable, "-m", "tests.peers.line_runner", json.dumps(site))
        self.process = lab.start("branch", "env", f"PYTHONPATH={ROOT}", *before, *command)
        self.seen: list[Seen] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self, what: str, is_it: Callable[[Seen], bool], since: float = 0.0) -> Seen:
        """Return the first observation told after *since* (boot seconds) for which *is_it* holds; else fail."""
        deadline = boot_s() + PATIENCE_S
        with self._news:
            while True:
                for seen in self.seen:
                    if seen["answered_at"] >= since and is_it(seen):
                        return seen
                left_s = deadline - boot_s()
                if left_s <= 0 or self.process.poll() is not None:
                    died = self.process.stderr.read() if self.process.poll() is not None and self.process.stderr else ""
                    pytest.fail(f"never seen: {what}; the last were {self.seen[-12:]} {died}")
                self._news.wait(min(left_s, 0.2))

    def wait_point(self, point: str, is_it: Callable[[Any], bool], since: float = 0.0) -> Seen:
        """Return the first good observation of *point* told after *since* whose value satisfies *is_it*."""
        return self.wait(
            point, lambda it: it["point"] == point and it["quality"] == "good" and is_it(it["value"]), since
        )

    def wait_unseen(self, point: str, since: float = 0.0) -> Seen:
        """Return the first observation of *point* told after *since* that is of unknown quality."""
        return self.wait(point, lambda it: it["point"] == point and it["quality"] == "unknown", since)

    def look(self, name: str) -> float:
        """Make the probe *name* look; return when."""
        assert self.process.stdin is not None
        at = boot_s()
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return at

    def wait_steady(self, *lines: str) -> None:
        """Wait until each of *lines* has a full enough window without loss to headquarters."""
        for line in lines:
            self.wait_point(f"{line}.hq.loss_ratio", lambda ratio: ratio == 0)

    def since(self, at: float, point: str) -> list[Seen]:
        """Return the observations of *point* told since *at*."""
        with self._news:
            return [seen for seen in self.seen if seen["point"] == point and seen["answered_at"] >= at]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.seen.append(json.loads(line))
                self._news.notify_all()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(second_site=True) as lab:
        yield lab


def both(**more: Any) -> dict[str, Any]:
    """Return the site of two lines."""
    return {"lines": {"wan1": keys("isp1"), "wan2": keys("isp2")}, **more}


def is_dead(lost_in_row: int) -> bool:
    return lost_in_row >= 4


def test_a_blackhole_is_seen_within_half_a_second_and_the_other_line_is_proven_good_by_a_later_probe(lab: Lab):
    feed = Feed(lab, both())
    feed.wait_steady("wan1", "wan2")

    began_at = boot_s()
    lab.blackhole("isp1")
    dead = [feed.wait_point(f"wan1.{rung}.lost_in_row", is_dead, began_at) for rung in FAR]
    since = dead[1]["since"]
    proof = feed.wait("wan2 good", lambda it: it["point"] == "wan2.hq.lost_in_row" and it["asked_at"] > since)

    assert max(it["answered_at"] for it in dead) - began_at < 0.5
    assert all(it["since"] >= began_at - 0.05 for it in dead)
    assert proof["value"] == 0
    assert proof["answered_at"] - began_at < 0.5
    assert not any(it["value"] for it in feed.since(began_at, "wan1.cpe.lost_in_row"))
    assert not any(it["value"] is False for it in feed.since(began_at, "wan1.carrier"))


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_line_that_carries_only_one_way_is_dead(lab: Lab, direction: Any):
    feed = Feed(lab, both())
    feed.wait_steady("wan1")

    began_at = boot_s()
    lab.blackhole("isp1", direction)
    dead = feed.wait_point("wan1.hq.lost_in_row", is_dead, began_at)

    assert dead["answered_at"] - began_at < 0.5


def test_a_dead_core_leaves_the_edge_and_the_second_site_tells_hq_from_the_line(lab: Lab):
    targets = {**keys("isp1")["targets"], "second_site": SECOND_SITE}
    feed = Feed(lab, {"lines": {"wan1": keys("isp1", targets=targets)}})
    feed.wait_steady("wan1")

    began_at = boot_s()
    lab.hq_dead()
    feed.wait_point("wan1.hq.lost_in_row", is_dead, began_at)

    for rung in ("edge", "second_site"):
        assert not any(it["value"] for it in feed.since(began_at, f"wan1.{rung}.lost_in_row"))


def test_an_answer_after_losses_is_told_at_once(lab: Lab):
    feed = Feed(lab, both())
    feed.wait_steady("wan1")
    lab.blackhole("isp1")
    feed.wait_point("wan1.hq.lost_in_row", is_dead)

    lab.clear()
    ended_at = boot_s()
    good = feed.wait_point("wan1.hq.lost_in_row", lambda lost: lost == 0, ended_at)

    assert good["answered_at"] - ended_at < 0.5
    assert good["since"] is None


def test_steady_loss_shows_as_a_ratio(lab: Lab):
    feed = Feed(lab, both())
    feed.wait_steady("wan1", "wan2")

    began_at = boot_s()
    lab.loss("isp1", 40)  # in each direction, so that 64 % of the echoes are lost
    bad = feed.wait_point("wan1.hq.loss_ratio", lambda ratio: ratio >= 0.25, began_at)

    assert bad["answered_at"] - began_at < 2.5
    assert not any(it["value"] for it in feed.since(began_at, "wan2.hq.loss_ratio"))


def test_a_link_that_goes_down_at_the_far_end_has_no_carrier_at_once(lab: Lab):
    feed = Feed(lab, both())
    feed.wait_steady("wan1")

    began_at = boot_s()
    lab.link_down("isp1")
    down = feed.wait_point("wan1.carrier", lambda carrier: carrier is False, began_at)
    lab.clear()
    up_at = boot_s()
    up = feed.wait_point("wan1.carrier", lambda carrier: carrier is True, up_at)
    feed.wait_point("wan1.hq.lost_in_row", lambda lost: lost == 0, up_at)

    assert down["answered_at"] - began_at < 0.3
    assert up["since"] >= began_at
    assert not any(it["value"] is False for it in feed.since(began_at, "wan2.carrier"))


def test_an_interface_that_vanishes_has_no_carrier_and_one_that_never_was_is_unknown(lab: Lab):
    feed = Feed(lab, {"lines": {"wan1": keys("isp1"), "wan9": keys("isp2", interface="wan9")}})
    feed.wait_steady("wan1")

    began_at = boot_s()
    lab.run("branch", "ip", "link", "delete", "wan1")
    feed.wait_point("wan1.carrier", lambda carrier: carrier is False, began_at)
    unseen = feed.wait_unseen("wan1.hq.lost_in_row", began_at)
    never = feed.wait_unseen("wan9.carrier")

    assert unseen["fault"] == "binding_failed"
    assert never["quality"] == "unknown"
    assert never["fault"] == "binding_failed"
    assert not any(it["quality"] == "good" and it["value"] for it in feed.since(0.0, "wan9.binding_ok"))


def test_bound_probes_leave_by_their_own_line_although_the_host_routes_by_the_other(lab: Lab):
    lab.run("branch", "ping", "-c", "1", "-I", "wan1", LINES["isp1"].gateway)  # so that ARP is over
    before = {name: lab.packets(name, "tx") for name in ("wan1", "wan2")}

    feed = Feed(lab, {"lines": {"wan2": keys("isp2")}})
    feed.wait_steady("wan2")

    ok = feed.wait_point("wan2.binding_ok", lambda ok: ok is True)
    assert ok["value"] is True
    assert lab.packets("wan2", "tx") - before["wan2"] >= 20
    assert lab.packets("wan1", "tx") - before["wan1"] <= 2


def test_without_a_way_by_its_gateway_a_line_is_unknown_and_not_dead(lab: Lab):
    feed = Feed(lab, both())
    feed.wait_steady("wan2")

    began_at = boot_s()
    lab.run("branch", "ip", "route", "delete", "default", "via", LINES["isp2"].gateway)
    feed.wait_point("wan2.binding_ok", lambda ok: ok is False, began_at)
    unseen = feed.wait_unseen("wan2.hq.lost_in_row", began_at)
    lab.clear()
    mended_at = boot_s()
    feed.wait_point("wan2.binding_ok", lambda ok: ok is True, mended_at)
    feed.wait_point("wan2.hq.lost_in_row", lambda lost: lost == 0, mended_at)

    assert unseen["fault"] == "binding_failed"
    assert not any(it["value"] and is_dead(it["value"]) for it in feed.since(0.0, "wan2.hq.lost_in_row"))


def test_a_stall_of_our_own_is_no_loss(lab: Lab):
    feed = Feed(lab, both())
    feed.wait_steady("wan1", "wan2")
    # `ip netns exec` and `env` have become the interpreter itself.
    began_at = boot_s()
    for length_s in (0.3, 1.2, 3.0):
        os.kill(feed.process.pid, signal.SIGSTOP)
        threading.Event().wait(length_s)
        os.kill(feed.process.pid, signal.SIGCONT)
        again_at = boot_s()
        feed.wait_point("wan1.hq.lost_in_row", lambda _: True, again_at + 0.2)

    assert not any(it["value"] for it in feed.since(began_at, "wan1.hq.lost_in_row"))
    assert not any(it["value"] for it in feed.since(began_at, "wan1.hq.loss_ratio"))


def test_without_raw_sockets_the_ping_socket_does_the_same_work(lab: Lab):
    lab.run("branch", "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 0")
    feed = Feed(lab, both(), "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    feed.wait_steady("wan1", "wan2")

    began_at = boot_s()
    lab.blackhole("isp2")
    dead = feed.wait_point("wan2.hq.lost_in_row", is_dead, began_at)

    assert dead["answered_at"] - began_at < 0.5


def test_where_no_echo_is_permitted_every_rung_is_unknown(lab: Lab):
    lab.run("branch", "sysctl", "-q", "-w", "net.ipv4.ping_group_range=1 0")
    feed = Feed(lab, both(), "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")

    unseen = feed.wait_unseen("wan1.hq.lost_in_row")

    assert (unseen["quality"], unseen["fault"]) == ("unknown", "failed")


def test_the_service_is_open_closed_and_hidden(lab: Lab):
    targets = {"hq": HQ, "hq_service": f"{HQ_SERVICE}:4430"}
    listen = f"import socket; s = socket.create_server(('{HQ_SERVICE}', 4430)); print('up', flush=True); input()"
    feed = Feed(lab, {"lines": {"wan2": keys("isp2", targets=targets)}})
    closed = feed.wait_point("wan2.hq_service.open", lambda is_open: is_open is False)

    server = lab.start("hq", sys.executable, "-c", listen)
    assert server.stdout is not None
    server.stdout.readline()
    asked_at = feed.look("wan2")
    opened = feed.wait_point("wan2.hq_service.open", lambda is_open: is_open is True, asked_at)

    assert closed["asked_at"] < opened["asked_at"]
    assert opened["answered_at"] - asked_at < 2.5


def test_the_path_names_the_line_that_the_host_routes_by(lab: Lab):
    feed = Feed(lab, both(path={"target": HQ}))
    feed.wait_point("path.line", lambda line: line == "wan1")

    lab.run("branch", "ip", "route", "add", "default", "via", LINES["isp2"].gateway, "dev", "wan2", "metric", "50")
    moved_at = feed.look("path")
    moved = feed.wait_point("path.line", lambda line: line == "wan2", moved_at)

    assert moved["asked_at"] >= moved_at
    assert moved["answered_at"] - moved_at < 0.3


def test_a_path_that_is_silent_is_good_evidence_of_no_answer(lab: Lab):
    feed = Feed(lab, both(path={"target": HQ}))
    feed.wait_point("path.answered", lambda answered: answered is True)

    began_at = boot_s()
    lab.blackhole("isp1")
    silent = feed.wait_point("path.answered", lambda answered: answered is False, began_at)
    line = feed.wait_unseen("path.line", began_at)

    assert silent["answered_at"] - silent["asked_at"] == pytest.approx(1.0, abs=0.3)
    assert line["fault"] == "timed_out"


def test_an_answer_that_comes_back_by_the_other_line_is_suspect(lab: Lab):
    feed = Feed(lab, both(path={"target": HQ}))
    feed.wait_point("path.line", lambda line: line == "wan1")

    # The way back to wan1's address leads over the other ISP, which hands it to the branch by its own wire.
    back_at = boot_s()
    lab.run("hq", "ip", "route", "replace", LINES["isp1"].network, "via", LINES["isp2"].isp_side, "dev", "isp2")
    lab.run("isp2", "ip", "route", "add", LINES["isp1"].network, "via", LINES["isp2"].address, "dev", "cust")
    suspect = feed.wait("suspect", lambda it: it["point"] == "path.line" and it["quality"] == "suspect", back_at)

    assert suspect["value"] is None
    assert "wan1" in suspect["fault"]
    assert "wan2" in suspect["fault"]


def test_leaving_the_lab_leaves_nothing_behind():
    with Lab() as lab:
        names = [lab.name_of(space) for space in ("branch", "isp1", "isp2", "hq")]
        start = lab.routes()
        process = lab.start("branch", "sleep", "99")
        lab.link_down("isp1")
        lab.run("branch", "ip", "route", "add", "default", "via", LINES["isp2"].gateway, "metric", "50")
        lab.reset()

        assert lab.routes() == start

    listed = subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout
    assert process.poll() is not None
    assert not [name for name in names if name in listed]
