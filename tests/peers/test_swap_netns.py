"""
The whole agent on real packets: a branch with two lines, the faults of providers and headquarters, and its own traffic.

Each test starts the installed program in the branch's namespace and looks at what an echo each 10 ms sees. Needs root.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from agent.clock import boot_s
from tests.peers.agent_process import AgentProcess, Plain, site_text
from tests.peers.echo_traffic import Traffic
from tests.peers.netns import LINES, Isp, Lab

PRIMARY: Final = LINES["isp1"].address
STANDBY: Final = LINES["isp2"].address
# The aim is 0.3 s, and tools/bench_swap.py measures it. Here other work may share the machine, and only waits are found.
OUTAGE_S_MAX: Final = 1.0
LOSS_FOR_S: Final = 20.0
CLEAN_S: Final = 3.0

Start = Callable[..., AgentProcess]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def traffic(lab: Lab) -> Traffic:
    return Traffic(lab)


@pytest.fixture
def start(lab: Lab, traffic: Traffic, tmp_path: Path) -> Iterator[Start]:
    """Give what starts an agent. Afterwards the routes are what they were, and the journal is sound."""
    before = lab.routes()
    started: list[AgentProcess] = []

    def start(**site: str) -> AgentProcess:
        agent = AgentProcess(lab, tmp_path, site_text(tmp_path, **site))
        started.append(agent)
        agent.start()
        return agent

    try:
        yield start
        after = lab.routes()
        codes = [agent.stop() for agent in started]
        found = [agent.journal() for agent in started]
    finally:
        for agent in started:
            agent.kill()
        lab.reset()
    assert after == before
    assert codes == [0]
    assert [(report.problems, report.entries > 0) for report in found] == [((), True)]


def kill(lab: Lab, *isps: Isp) -> None:
    """Silence the lines of *isps* at the same moment."""
    threads = [threading.Thread(target=lab.blackhole, args=(isp,)) for isp in isps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def is_active(status: Plain, *alarms: str) -> bool:
    """Tell whether all *alarms* stand."""
    active = {f"{a['equipment']}.{a['alarm']}" for a in status["alarms"] if a["state"] == "active"}
    return active.issuperset(alarms)


def done(status: Plain) -> list[str]:
    """Return the runbooks that have run, oldest first; fail when one has not ended well."""
    assert all(run["state"] == "done" for run in status["runs"]), status["runs"]
    return [run["runbook"] for run in sorted(status["runs"], key=lambda run: int(run["id"][1:]))]


def is_home(status: Plain) -> bool:
    """Tell whether the last run has brought the traffic back."""
    return not status["arrangements"] and bool(status["runs"]) and done(status)[-1] == "standby.return"


def causes(agent: AgentProcess) -> list[str]:
    """Return the causes that `explain` names for the one open incident."""
    (incident,) = agent.status()["incidents"]
    return [candidate["id"] for candidate in agent.explain(incident["id"])["named"]]


def refusal(agent: AgentProcess) -> Plain:
    """Return why the runbook does not act on the one open incident, as `explain` says it."""
    (incident,) = agent.status()["incidents"]
    found = {book["runbook"]: book["refusal"] for book in agent.explain(incident["id"])["runbooks"]}
    assert found["standby"] is not None
    return dict(found["standby"])


def swapped(agent: AgentProcess, traffic: Traffic, began_at: float) -> float:
    """Wait until traffic goes by the standby line, and the agent knows; return since when."""
    moved = traffic.wait_by(STANDBY, began_at)
    agent.wait("on the standby line", lambda status: [it["line"] for it in status["arrangements"]] == ["wan2"])
    return moved.sent_at


def came_home(agent: AgentProcess, traffic: Traffic, since: float) -> None:
    """Wait until traffic is back on the primary line; not one echo sent after *since* is lost on the way."""
    traffic.wait_by(PRIMARY, since)
    status = agent.wait("home again", is_home)

    assert traffic.lost(since, boot_s()) == 0
    assert done(status) == ["standby", "standby.return"]


@pytest.mark.parametrize(("edge", "cause"), [(True, "line:wan1:access"), (False, "line:wan1:core")])
def test_a_silent_blackhole_moves_the_traffic_to_the_standby_line_and_back(
    lab: Lab, traffic: Traffic, start: Start, edge: bool, cause: str
):
    agent = start()
    agent.wait_age(CLEAN_S)  # a younger one would suspect headquarters for as long where the edge answers

    began_at = boot_s()
    lab.blackhole("isp1", edge=edge)
    moved_at = swapped(agent, traffic, began_at)
    named = causes(agent)
    lab.clear()
    came_home(agent, traffic, moved_at)

    assert named == [cause]
    assert traffic.outage(began_at, moved_at).length_s < OUTAGE_S_MAX


@pytest.mark.parametrize("passes_over_dead_routes", [True, False])
def test_a_link_down_at_the_far_end_moves_the_traffic_and_carrier_alone_does_not_bring_it_back(
    lab: Lab, traffic: Traffic, start: Start, passes_over_dead_routes: bool
):
    where = [f"net.ipv4.conf.{it}.ignore_routes_with_linkdown" for it in ("all", "wan1", "wan2")]
    lab.run("branch", "sysctl", "-q", "-w", *(f"{it}={int(passes_over_dead_routes)}" for it in where))
    agent = start()

    began_at = boot_s()
    lab.link_down("isp1")
    moved_at = swapped(agent, traffic, began_at)
    named = causes(agent)
    lab.run("isp1", "ip", "link", "set", "cust", "up")  # but not its routes: the box is up before its line is
    agent.wait("carrier", lambda status: status["equipment"]["wan1"]["points"]["carrier"]["value"] is True)
    lab.clear()
    came_home(agent, traffic, moved_at)

    assert named == ["line:wan1:port"]
    assert traffic.outage(began_at, moved_at).length_s < OUTAGE_S_MAX


@pytest.mark.parametrize("direction", ["out", "in"])
def test_a_line_that_carries_only_one_way_is_left(lab: Lab, traffic: Traffic, start: Start, direction: Any):
    agent = start()

    began_at = boot_s()
    lab.blackhole("isp1", direction)
    moved_at = swapped(agent, traffic, began_at)
    lab.clear()
    came_home(agent, traffic, moved_at)

    assert traffic.outage(began_at, moved_at).length_s < OUTAGE_S_MAX


def test_two_lines_that_die_together_move_nothing_and_explain_says_why(lab: Lab, start: Start):
    agent = start()
    before = lab.routes()

    kill(lab, "isp1", "isp2")
    status = agent.wait("no traffic", lambda s: is_active(s, "wan1.hq_dead", "wan2.hq_dead", "path.path_dead"))
    why = refusal(agent)

    assert status["runs"] == []
    assert lab.routes() == before
    assert why["code"] == "cause_elsewhere"
    assert "not settled" in why["text"]
    assert {"line:wan1:access", "line:wan2:access"} <= set(causes(agent))


@pytest.mark.parametrize("profile", ["fast", "default"])
def test_a_dead_headquarters_moves_nothing_and_explain_says_why(lab: Lab, start: Start, profile: str):
    agent = start(profile=profile)
    before = lab.routes()

    lab.hq_dead()
    bad = ("wan1.hq_dead", "wan1.hq_bad", "wan2.hq_dead", "wan2.hq_bad", "path.path_dead")
    status = agent.wait("no traffic", lambda status: is_active(status, *bad))
    why = refusal(agent)
    named = causes(agent)
    lab.clear()
    agent.wait("headquarters answers", lambda status: not is_active(status, "wan1.hq_dead"))

    assert status["runs"] == []
    assert agent.status()["runs"] == []
    assert lab.routes() == before
    assert named == ["hq"]
    assert why["code"] == "cause_elsewhere"
    assert why["text"] == "the cause is headquarters, not wan1: swapping would not help"


def test_a_line_that_loses_a_quarter_each_way_is_left_once_and_not_taken_back_while_it_does(
    lab: Lab, traffic: Traffic, start: Start
):
    agent = start()

    began_at = boot_s()
    lab.loss("isp1", 25)
    moved_at = swapped(agent, traffic, began_at)
    traffic.settled(moved_at, began_at + LOSS_FOR_S)
    runs = done(agent.status())
    lab.clear()
    came_home(agent, traffic, moved_at)

    assert runs == ["standby"]


def test_on_hold_nothing_moves_and_after_release_it_does(lab: Lab, traffic: Traffic, start: Start):
    agent = start()
    before = lab.routes()

    agent.hold("a person works on the line")
    lab.blackhole("isp1")
    agent.wait("no traffic", lambda status: is_active(status, "wan1.hq_dead", "path.path_dead"))
    why, held = refusal(agent), agent.status()
    routes = lab.routes()
    released_at = boot_s()
    agent.release()
    moved_at = swapped(agent, traffic, released_at)
    lab.clear()
    came_home(agent, traffic, moved_at)

    assert (held["mode"], held["runs"]) == ("hold", [])
    assert routes == before
    assert why["code"] == "held"
    assert "a person works on the line" in why["text"]


def test_a_standby_that_dies_too_is_left_as_soon_as_the_primary_is_good(lab: Lab, traffic: Traffic, start: Start):
    agent = start()

    swapped_from = boot_s()
    lab.blackhole("isp1")
    swapped(agent, traffic, swapped_from)
    lab.blackhole("isp2")
    status = agent.wait("both dead", lambda status: is_active(status, "wan1.hq_dead", "wan2.hq_dead"))
    lab.end("isp1")
    good_at = boot_s()
    traffic.wait_by(PRIMARY, good_at)
    home = agent.wait("home again", is_home)

    assert done(status) == ["standby"]
    assert done(home) == ["standby", "standby.return"]
