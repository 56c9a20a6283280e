"""The doctor: what it looks at on the agent's own host, and what the verb `route` would meet there."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from agent import doctor
from agent.clock import SystemClock
from agent.config import load
from agent.core.model import At
from agent.doctor import Verdict, examine
from agent.doctor.finding import holder_of
from agent.doctor.route import check_linkdown, check_table
from agent.ports import Route
from agent.runtime.state_dir import StateDirectory
from probes import PROBES
from runbooks import ACTIONS
from tests.fakes.patient import GOOD, Site, about, is_wrong, running


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(Site(tmp_path)) as found:
        yield found


# ---------------------------------------------------------------- the verb route


async def test_a_metric_that_leaves_no_room_has_its_cure(site: Site):
    for metric, verdict in ((0, Verdict.WRONG), (1, Verdict.WRONG), (2, Verdict.OK)):
        site.routes = (Route("default", "127.0.11.1", "lo", metric, ours=False),)

        finding = about(await site.examined(), "route default")

        assert finding.verdict is verdict, metric
        assert verdict is Verdict.OK or "ifupdown: metric 100" in finding.cure


async def test_a_metric_that_a_script_names_must_be_better(site: Site):
    patient = site.patient()
    book = patient.movers()[0]
    for metric, verdict in ((100, Verdict.WRONG), (99, Verdict.OK)):
        step = replace(book.steps[0], wanted=(("metric", metric), ("to", "wan2")))

        (finding,) = await check_table(patient, replace(book, steps=(step,)))

        assert finding.verdict is verdict


async def test_a_host_without_default_route_is_wrong(site: Site):
    site.routes = ()

    is_wrong(about(await site.examined(), "route default"), "no such route", "give each line one of its own")


async def test_a_best_route_by_another_way_is_wrong(site: Site):
    site.routes = (Route("default", "127.0.99.1", "lo", 50, ours=False), *GOOD)

    is_wrong(about(await site.examined(), "route default"), "which is not wan1", "lowest metric")


async def test_a_route_of_ours_is_told_as_what_it_is(site: Site):
    site.routes = (Route("default", "127.0.12.1", "lo", 90, ours=True), *GOOD)

    finding = about(await site.examined(), "route default")

    assert finding.verdict is Verdict.NOTE
    assert "the agent has moved the traffic: default via 127.0.12.1 dev lo metric 90 (ours)" in finding.what


async def test_a_gateway_out_of_reach_is_wrong(site: Site):
    site.addresses = {"lo": (IPv4Interface("127.0.0.11/8"), IPv4Interface("127.0.0.12/24"))}

    is_wrong(about(await site.examined(), "route wan2"), "on no network of 127.0.0.12 (127.0.0.0/24)", "mend gateway")


async def test_without_the_permission_a_runbook_that_acts_is_wrong_and_one_that_watches_is_noted(site: Site):
    site.capabilities = 0
    is_wrong(about(await site.examined(), "route"), "and standby would", "give the service CAP_NET_ADMIN")

    site.mode = "watch"
    assert about(await site.examined(), "route").verdict is Verdict.NOTE


async def test_without_the_program_ip_nothing_else_of_routes_is_asked(site: Site):
    site.programs = ()
    found = await site.examined()

    is_wrong(about(found, "route"), "the program ip is not installed", "apt install iproute2")
    assert not [finding for finding in found if finding.about == "route default"]


async def test_a_site_whose_runbook_is_off_asks_nothing_of_routes(site: Site):
    site.mode = "off"
    site.capabilities, site.programs = 0, ()

    assert doctor.is_well(await site.examined())


async def test_a_port_that_the_kernel_does_not_pass_over_is_noted(site: Site):
    lines = replace(site.patient().config.lines["wan1"], interface="eth1", source=None)
    for linkdown, verdict in (("0", Verdict.NOTE), ("1", Verdict.OK)):
        site.linkdown = linkdown
        patient = site.patient()
        config = replace(patient.config, lines={"wan1": lines})

        (finding,) = await check_linkdown(replace(patient, config=config))

        assert finding.verdict is verdict
        assert verdict is Verdict.OK or "net.ipv4.conf.all.ignore_routes_with_linkdown=1" in finding.cure


# ---------------------------------------------------------------- the host


@dataclass
class SetClock:
    """A clock that shows what it is set to."""

    utc_s: float

    def now(self) -> At:
        return At("boot", 1000.0, self.utc_s)


@pytest.mark.parametrize("utc_s", [0.0, 1_500_000_000.0, 5_000_000_000.0])
async def test_a_clock_of_another_age_is_wrong(site: Site, utc_s: float):
    site.clock = SetClock(utc_s)

    is_wrong(about(await site.examined(), "clock"), "it says", "timedatectl")


async def test_a_clock_before_what_was_written_already_is_wrong(site: Site):
    now_s = SystemClock().now().utc_s
    (site.folder / "state").mkdir()
    record = site.folder / "state" / "journal.db"
    record.touch()
    os.utime(record, (now_s + 86_400, now_s + 86_400))

    is_wrong(about(await site.examined(), "clock"), "journal.db was written", "timedatectl")


async def test_an_agent_that_runs_is_left_alone(site: Site):
    with StateDirectory(site.folder / "state"):
        before = {path: path.stat().st_mtime_ns for path in (site.folder / "state").iterdir()}
        found = await site.examined()
        after = {path: path.stat().st_mtime_ns for path in (site.folder / "state").iterdir()}

    agent = about(found, "agent")
    assert agent.verdict is Verdict.NOTE
    assert f"pid {os.getpid()}" in agent.what
    assert "only looked at" in agent.what
    assert before == after


async def test_a_lock_that_a_crash_left_behind_is_no_agent(site: Site):
    StateDirectory(site.folder / "state").release()

    assert holder_of(site.folder / "state") is None
    assert about(await site.examined(), "agent").verdict is Verdict.OK


async def test_looking_at_the_lock_keeps_nobody_from_taking_it(site: Site):
    StateDirectory(site.folder / "state").release()
    await site.examined()

    StateDirectory(site.folder / "state").release()


async def test_a_disk_without_room_is_wrong(site: Site):
    site.free_bytes = 512 * 1024 * 1024 - 1

    is_wrong(about(await site.examined(), "disk"), "511 MiB free", "make room: 512 MiB")


async def test_a_state_directory_that_is_a_file_is_wrong(site: Site):
    (site.folder / "state").touch()

    is_wrong(about(await site.examined(), "state directory"), "is no directory", "server.state_dir")


async def test_files_that_root_has_left_in_the_state_directory_are_wrong(site: Site):
    """An agent that was once tried as root leaves files that the service cannot write. Needs root, to give them away."""
    state = site.folder / "state"
    state.mkdir()
    (state / "journal.db").touch()
    os.chown(state, 65534, 65534)

    is_wrong(about(await site.examined(), "state directory"), "journal.db there belong to another user", "chown -R")


async def test_a_socket_path_that_is_taken_or_too_long_is_wrong(site: Site):
    (site.folder / "run").mkdir()
    (site.folder / "run/control.sock").touch()
    is_wrong(about(await site.examined(), "socket"), "something else than a socket", "server.socket")

    deep = Site(site.folder / ("d" * 100), site.nut, site.wan1, site.wan2)
    deep.folder.mkdir()
    is_wrong(about(await deep.examined(), "socket"), "bytes", "write a shorter path")


async def test_a_port_of_the_metrics_that_another_has_is_wrong(site: Site):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = site.config()
        text = config.source.read_text(encoding="utf-8").replace("127.0.0.1:0", f"127.0.0.1:{port}")
        config.source.write_text(text, encoding="utf-8")

        found = await examine(load(config.source, PROBES, ACTIONS), site.around(), site.kernel())

    is_wrong(about(found, "metrics"), f"127.0.0.1:{port} cannot be had", "server.metrics")
