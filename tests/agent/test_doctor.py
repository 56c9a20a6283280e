"""The doctor: what it tries of a site's probes, found right and found wrong, with the cure in plain words."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent import doctor
from agent.cli import main
from agent.core.model import Observation, PointId, PointSpec, Quality
from agent.doctor import CHECKS, Finding, Verdict, examine
from agent.doctor.asked import Asked, Heard, Reading, read_stream
from agent.doctor.probes import ask_lane, listen
from agent.doctor.readings import READINGS
from agent.errors import ProbeFault
from agent.ports import Route
from drills.simsite.nut_server import NutFault
from probes import PROBES
from tests.fakes.patient import UPS, Site, about, is_wrong, running
from tests.fakes.polled import Polled, Stream, Tarpit


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(Site(tmp_path)) as found:
        yield found


# ---------------------------------------------------------------- the whole


async def test_a_sound_site_is_found_sound(site: Site):
    found = await site.examined()

    assert [finding.line() for finding in found if finding.verdict is not Verdict.OK] == []
    assert doctor.is_well(found)
    names = [finding.about for finding in found]
    assert {"ups-a status", "ups-a variables", "wan1 cpe", "wan2 hq", "path", "this-host", "route default"} <= set(
        names
    )
    assert about(found, "ups-a status").what == "answers: OL"
    assert "by wan1" in about(found, "path").what


async def test_each_finding_is_one_line_and_the_last_line_counts_them(site: Site):
    site.programs = ("ip",)
    rows = doctor.lines(await site.examined())

    note = next(row for row in rows if row.startswith("note "))
    assert note.startswith("note   conntrack: the program conntrack is not installed")
    assert note.endswith("; apt install conntrack")
    assert rows[-1] == f"{len(rows) - 2} ok, 1 to note, 0 wrong"


async def test_every_sick_part_is_told_at_once(site: Site):
    site.nut.fault = NutFault.FROZEN
    site.wan2.silent = True
    site.routes = (Route("default", "127.0.11.1", "lo", 0, ours=False),)
    found = await site.examined()

    wrong = {finding.about for finding in found if finding.verdict is Verdict.WRONG}
    assert wrong == {"ups-a status", "ups-a variables", "wan2 cpe", "route default"}
    assert not doctor.is_well(found)


async def test_nothing_is_left_behind_in_the_state_directory(site: Site):
    (site.folder / "state").mkdir()
    before = sorted(site.folder.rglob("*"))

    found = await site.examined()

    kept = [path for path in sorted(site.folder.rglob("*")) if path not in before]
    assert about(found, "state directory").verdict is Verdict.OK
    assert all(path.name == "site.yaml" or (site.folder / "proc") in (path, *path.parents) for path in kept)


def test_every_kind_of_probe_that_needs_a_person_has_its_reading():
    assert PROBES.keys() == READINGS.keys()


def test_every_check_has_a_deadline_and_a_name_of_its_own():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(0 < check.deadline_s <= 30 for check in CHECKS)


# ---------------------------------------------------------------- ups


@pytest.mark.parametrize(
    ("fault", "what", "cure"),
    [
        (NutFault.FROZEN, "no answer in time", "firewall"),
        (NutFault.CLOSED, "ended in the middle", "log"),
        (NutFault.DENIED, "access is denied", "upsd.conf"),
        (NutFault.STALE, "data stale", "its driver has gone quiet"),
        (NutFault.DRIVER_GONE, "driver not connected", "upsdrvctl start su700"),
        (NutFault.WAIT, "wait", "try again in a minute"),
    ],
)
async def test_a_nut_server_that_fails_has_its_cure(site: Site, fault: NutFault, what: str, cure: str):
    site.nut.fault = fault

    is_wrong(about(await site.examined(), "ups-a status"), what, cure)


async def test_a_nut_server_that_is_not_there_is_to_be_started(site: Site):
    config = site.config()
    await site.nut.stop()

    found = await examine(config, site.around(), site.kernel())

    is_wrong(about(found, "ups-a variables"), "the connection is refused", "systemctl start nut-server")


async def test_a_ups_of_another_name_is_named(site: Site):
    site.nut.ups = {"myups": dict(UPS)}

    is_wrong(about(await site.examined(), "ups-a status"), "no device su700", "as the server has it: myups")


async def test_a_ups_on_its_battery_and_one_without_charge_are_noted(site: Site):
    site.nut.ups["su700"] = {"ups.status": "OB", "battery.runtime": "600"}
    found = await site.examined()

    assert about(found, "ups-a status") == Finding(
        Verdict.NOTE, "ups-a status", "answers: OB: it runs on its battery now"
    )
    assert "without battery_charge_ratio, load_ratio" in about(found, "ups-a variables").what
    assert doctor.is_well(found)


# ---------------------------------------------------------------- lines and path


async def test_a_far_end_that_is_silent_has_a_command_to_try(site: Site):
    site.wan1.silent = True
    found = await site.examined()

    is_wrong(about(found, "wan1 cpe"), "127.0.0.21", "is the provider's box on")
    assert about(found, "wan1 hq").verdict is Verdict.OK  # it opens the connection, and that is all that is asked


async def test_a_source_that_is_not_of_this_host_is_told_once_for_the_line(site: Site):
    site.source1 = "192.0.2.200"
    found = await site.examined()

    is_wrong(about(found, "wan1"), "this host has no address 192.0.2.200", "here: 127.0.0.11, 127.0.0.12")
    assert about(found, "wan2 cpe").verdict is Verdict.OK


async def test_a_service_that_opens_no_connection_is_wrong(site: Site):
    with socket.socket() as taken:
        taken.bind(("127.0.0.22", 0))  # bound and not listening: refused
        site.more = f', hq_service: "127.0.0.22:{taken.getsockname()[1]}"'
        found = await site.examined()

    is_wrong(about(found, "wan2 hq_service"), "opens no connection", "is the service up")


async def test_traffic_that_goes_by_the_standby_is_noted(site: Site):
    site.caller = "127.0.0.12"

    path = about(await site.examined(), "path")

    assert path.verdict is Verdict.NOTE
    assert "by wan2: the site is on its standby line" in path.what


async def test_traffic_that_goes_by_no_line_of_the_site_is_wrong(site: Site):
    site.caller = "198.51.100.77"

    is_wrong(about(await site.examined(), "path"), "by no line of the site", "ip route get")


async def test_traffic_that_does_not_arrive_is_wrong(site: Site):
    site.caller = ProbeFault("timed_out")

    is_wrong(about(await site.examined(), "path"), "does not answer the way this host routes it", "ip route get")


async def test_a_first_packet_that_is_lost_is_no_silence(site: Site):
    site.lost_first = 1

    assert about(await site.examined(), "path").verdict is Verdict.OK


# ---------------------------------------------------------------- any probe


async def test_a_probe_that_hangs_crashes_or_lies_costs_itself_only(site: Site):
    def crash() -> Any:
        raise ZeroDivisionError("a mistake")

    hung, crashed = Tarpit(deadline_s=0.05), Polled(answer=crash)

    late, broken = await ask_lane(hung, hung.lanes[0]), await ask_lane(crashed, crashed.lanes[0])

    assert (late.fault, late.detail) == ("timed_out", "no answer within 0.05 s")  # type: ignore[union-attr]
    assert (broken.fault, "a mistake" in broken.detail) == ("failed", True)  # type: ignore[union-attr]
    assert hung.in_flight == 0


async def test_a_stream_of_an_unknown_kind_is_read_by_its_points(site: Site):
    stream = Stream("wan9")
    asked = Asked(site.patient(), "wan9", "new", None)
    enough = Reading(is_enough=lambda asked, heard: "value" in heard.seen)

    heard = await listen(asked, stream, enough)

    assert read_stream(asked, heard)[0].line() == "ok     wan9: 1 of 2 points are told"


async def test_a_stream_that_crashes_is_told_with_its_mistake(site: Site):
    asked = Asked(site.patient(), "wan9", "new", None)

    heard = await listen(asked, Stream("wan9", crashes=1), Reading())

    is_wrong(read_stream(asked, heard)[0], "the probe ended: ZeroDivisionError('a mistake')", "docs/probes.md")


def test_a_stream_that_saw_nothing_is_wrong():
    spec = {"value": PointSpec("", 1.0, "")}
    asked: Any = Asked(None, "x", "new", None)  # type: ignore[arg-type]
    blind = Observation(PointId("x.value"), None, Quality.UNKNOWN, 0.0, 0.0, "x", "unreachable")

    assert "nothing was told in time" in read_stream(asked, Heard(spec, {}))[0].what
    assert "the network knows no way there" in read_stream(asked, Heard(spec, {"value": blind}))[0].what


# ---------------------------------------------------------------- the command

BARE = """
site: {{id: b1}}
equipment: {{this-host: {{kind: host, disks: [{disk}]}}}}
server: {{socket: {at}/run/c.sock, state_dir: {at}/state, metrics: '127.0.0.1:0'}}
"""


def command(path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "-c", str(path), *words])


def test_a_sound_site_ends_with_0_and_a_sick_one_with_1(tmp_path: Path):
    path = tmp_path / "site.yaml"
    for disk, code in (("/", 0), ("/nowhere/at/all", 1)):
        path.write_text(BARE.format(disk=disk, at=tmp_path), encoding="utf-8")

        ended = command(path)

        assert ended.exit_code == code, ended.output
    assert "wrong  this-host: /nowhere/at/all: No such file or directory; write under disks" in ended.stdout


def test_json_has_verdict_and_cure_of_each(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text(BARE.format(disk="/", at=tmp_path), encoding="utf-8")

    told = json.loads(command(path, "--json").stdout)

    assert told["well"] is True
    assert all(one.keys() == {"verdict", "about", "what", "cure"} for one in told["findings"])


def test_a_site_file_with_mistakes_ends_with_2(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text("site: {id: b1}\nequipment: {x: {kind: hots}}\n", encoding="utf-8")

    ended = command(path)

    assert ended.exit_code == 2
    assert "did you mean host?" in ended.stderr
