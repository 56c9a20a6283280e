"""A first site file: what the machine shows becomes a file that `check` takes, and what only people know is marked."""

from __future__ import annotations

import json
import os
import stat
from collections import namedtuple
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import main
from agent.config import Config, load
from agent.coverage import report
from agent.errors import ActionFailed, ConfigError, ProbeFault
from agent.first_site import fill_ins, first_site, is_text, scalar
from agent.ports import Route
from agent.survey import Machine, Survey, local_disks, survey, zone_name
from agent.yaml_source import parse
from drills.simsite.nut_server import NutFault, SimNutServer
from probes import PROBES
from probes.wire.nut_devices import Device, devices
from runbooks import ACTIONS
from tests.fakes.scripted_server import Connection, ScriptedServer

WAN1 = Route("default", "192.0.2.1", "eth1", 100, ours=False)
WAN2 = Route("default", "198.18.2.1", "eth2", 200, ours=False)
SEEN = Survey("br-7.example", "Asia/Shanghai", (Device("su700", "Closet"),), (WAN1, WAN2), ("/", "/var"))
HQ = "203.0.113.1"

Partition = namedtuple("Partition", "device mountpoint fstype opts")


def loaded(text: str, folder: Path) -> Config:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, PROBES, ACTIONS)


# ---------------------------------------------------------------- seeing


async def nobody() -> tuple[Any, ...]:
    return ()


def refused_by(error: Exception) -> Callable[[], Any]:
    def door() -> Any:
        raise error

    return door


def hung_up(error: Exception) -> Callable[[], Awaitable[Any]]:
    async def door() -> Any:
        raise error

    return door


async def test_what_every_door_shows_is_seen():
    async def two_routes() -> tuple[Route, ...]:
        return WAN1, WAN2

    server = SimNutServer()
    server.ups = {"su700": {}, "rack-2": {}}
    await server.start()
    try:
        seen = await survey(
            Machine(
                lambda: "br-7",
                lambda: "Asia/Shanghai",
                lambda: devices(*server.address, 2.0),
                two_routes,
                lambda: ("/",),
            )
        )
    finally:
        await server.stop()

    assert [one.name for one in seen.devices] == ["su700", "rack-2"]
    assert (seen.hostname, seen.timezone, seen.routes, seen.disks) == ("br-7", "Asia/Shanghai", (WAN1, WAN2), ("/",))
    assert not seen.unseen


async def test_a_door_that_fails_is_a_fact_and_hides_no_other():
    seen = await survey(
        Machine(
            lambda: "br-7",
            refused_by(OSError("no zone")),
            hung_up(ProbeFault("refused", "port 3493")),
            hung_up(ActionFailed("program ip is not installed")),
            refused_by(PermissionError("not for you")),
        )
    )

    assert seen.hostname == "br-7"
    assert seen.disks == ("/",)
    assert seen.unseen == {
        "timezone": "no zone",
        "devices": "refused: port 3493",
        "routes": "program ip is not installed",
        "disks": "not for you",
    }


async def test_a_server_that_hangs_costs_its_deadline_and_no_more():
    server = SimNutServer()
    server.fault = NutFault.FROZEN
    await server.start()
    try:
        with pytest.raises(ProbeFault, match="timed_out"):
            await devices(*server.address, 0.1)
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"ERR ACCESS-DENIED\n", "access_denied"),
        (b"HTTP/1.1 400 Bad Request\n", "bad_reply"),
        (b'BEGIN LIST UPS\nUPS a "half', "closed"),
        (b"BEGIN LIST UPS\n" + b'UPS a "b"\n' * 300, "bad_reply"),
        (b"x" * 20_000 + b"\n", "bad_reply"),
        (b"", "closed"),
    ],
)
async def test_an_answer_that_is_no_list_is_a_fault(answer: bytes, fault: str):
    async def script(connection: Connection) -> None:
        await connection.asked()
        await connection.say(answer)
        connection.close()

    async with ScriptedServer(script) as server:
        with pytest.raises(ProbeFault) as caught:
            await devices(*server.address, 2.0)

    assert caught.value.fault == fault


def test_the_zone_is_where_localtime_leads_or_what_timezone_says(tmp_path: Path):
    (tmp_path / "timezone").write_text("Asia/Urumqi\n", encoding="utf-8")
    assert zone_name(tmp_path) == "Asia/Urumqi"

    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Shanghai")
    assert zone_name(tmp_path) == "Asia/Shanghai"


def test_a_zone_that_nobody_knows_is_told(tmp_path: Path):
    (tmp_path / "timezone").write_text("Mars/Olympus\n", encoding="utf-8")

    with pytest.raises(OSError, match="names a time zone"):
        zone_name(tmp_path)


def test_each_local_disk_counts_once_and_boot_files_not_at_all(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "efi").mkdir()
    (tmp_path / "hosts").touch()
    parts = [
        Partition("/dev/sda1", "/", "ext4", "rw,relatime"),
        Partition("/dev/sda1", str(tmp_path), "ext4", "rw"),
        Partition("/dev/sdb1", str(tmp_path / "data"), "xfs", "rw"),
        Partition("/dev/sda2", str(tmp_path / "efi"), "vfat", "rw"),
        Partition("/dev/sr0", str(tmp_path / "efi"), "ext4", "ro,nosuid"),
        Partition("/dev/sdc1", str(tmp_path / "hosts"), "ext4", "rw"),
    ]

    assert local_disks(parts) == ("/", str(tmp_path / "data"))


# ---------------------------------------------------------------- writing


def test_the_best_route_is_the_primary_and_the_next_one_the_standby(tmp_path: Path):
    config = loaded(first_site(SEEN), tmp_path)

    assert {name: (line.role, line.interface, line.gateway) for name, line in config.lines.items()} == {
        "wan1": ("primary", "eth1", "192.0.2.1"),
        "wan2": ("standby", "eth2", "198.18.2.1"),
    }
    assert dict(config.lines["wan1"].targets) == {"cpe": "192.0.2.1"}
    assert config.probe_configs["su700"][1].ups == "su700"
    assert config.probe_configs["this-host"][1].disks == ("/", "/var")
    assert (config.site.id, config.timezone, config.agent.host) == ("br-7", "Asia/Shanghai", "this-host")


def test_check_names_each_target_that_is_missing(tmp_path: Path):
    gaps = "\n".join(report(loaded(first_site(SEEN), tmp_path)).gaps)

    assert "wan1 has no hq target" in gaps
    assert "wan2 has no hq target" in gaps
    assert "wan1 has no edge target" in gaps
    assert "no runbook leaves wan1" in gaps


def test_with_headquarters_known_the_runbook_watches(tmp_path: Path):
    config = loaded(first_site(SEEN, HQ), tmp_path)

    book = config.site.runbooks["standby"]
    assert (str(book.mode), book.leaves, book.enters) == ("watch", "wan1", "wan2")
    assert config.probe_configs["path"][1].target == HQ


def test_what_is_filled_in_by_hand_is_taken(tmp_path: Path):
    text = first_site(SEEN)
    head, _, rest = text.partition("# runbooks:")
    filled = head.replace("# hq: ADDRESS", f"hq: {HQ}") + "runbooks:" + rest.replace("\n# ", "\n")

    config = loaded(filled, tmp_path)

    assert str(config.site.runbooks["standby"].mode) == "watch"


def test_what_was_forgotten_is_refused_with_its_place(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        loaded(first_site(SEEN).replace("# hq: ADDRESS", "hq: ADDRESS"), tmp_path)

    told = [(problem.path, problem.message) for problem in caught.value.problems]
    assert [path for path, _ in told] == ["equipment.wan1.targets.hq", "equipment.wan2.targets.hq"]
    assert all("'ADDRESS' is no IPv4 address" in message for _, message in told)


def test_what_could_not_be_seen_stands_there_with_its_reason(tmp_path: Path):
    unseen = {"devices": "refused: port 3493", "routes": "no program ip", "timezone": "no zone", "disks": "no psutil"}
    text = first_site(Survey(unseen=unseen))

    for reason in unseen.values():
        assert reason in text
    assert loaded(text, tmp_path).timezone == "UTC"


def test_the_commented_ups_and_line_are_right_once_they_are_filled_in(tmp_path: Path):
    text = first_site(Survey("br-7", "UTC"))
    rows = [row.replace("  # ", "  ", 1) if row.startswith("  # ") else row for row in text.splitlines()]
    prose = ("No UPS", "Without one", "nut-server", "No line", "The machine")
    rows = [row for row in rows if not row.strip().startswith(prose)]
    filled = "\n".join(rows).replace("INTERFACE", "eth1").replace("gateway: ADDRESS", "gateway: 192.0.2.1")
    filled = filled.replace("cpe: ADDRESS", "cpe: 192.0.2.1").replace("ADDRESS", HQ).replace("NAME", "su700")

    config = loaded(filled.replace("  # fed_by", "  fed_by"), tmp_path)

    assert {"mains", "ups-a", "wan1", "this-host"} <= config.site.equipment.keys()
    assert "path" in config.probe_configs


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (Route("default", "192.0.2.9", "eth1", 300, ours=False), "wan1 leaves by eth1 too"),
        (Route("default", "192.0.2.1", "eth3", 300, ours=False), "wan1 has the gateway 192.0.2.1 too"),
        (Route("default", "", "ppp0", 300, ours=False), "it has no gateway to ask"),
        (Route("default", "192.0.2.7,198.18.2.1", "eth5,eth6", 300, ours=False), "it goes by several at once"),
        (Route("default", "", "blackhole", 300, ours=False), "it leads out by no interface"),
        (Route("default", "198.18.2.7", "eth2", 5, ours=True), "the agent added it"),
    ],
)
def test_a_route_that_shows_no_line_is_left_out_with_the_reason(tmp_path: Path, route: Route, reason: str):
    text = first_site(Survey("br-7", "UTC", routes=(route, WAN1, WAN2)))

    assert f"metric {route.metric}" in text
    assert reason in text
    assert set(loaded(text, tmp_path).lines) == {"wan1", "wan2"}


def test_a_line_without_gateway_is_one_when_headquarters_is_known(tmp_path: Path):
    ppp = Route("default", "", "ppp0", 300, ours=False)

    config = loaded(first_site(Survey("br-7", "UTC", routes=(WAN1, ppp)), HQ), tmp_path)

    assert dict(config.lines["wan2"].targets) == {"hq": HQ}
    assert config.site.runbooks["standby"].enters == "wan2"


odd = st.text(max_size=60) | st.sampled_from(
    ("true", "null", "no", "0777", "1", "path", "this-host", "wan1", "mains", "-", "~")
)
addresses = st.ip_addresses(v=4).map(str) | st.just("")
routes = st.builds(Route, st.just("default"), addresses, odd, st.integers(0, 2**32 - 1), st.booleans())


@given(
    st.builds(
        Survey,
        odd,
        st.sampled_from((None, "Asia/Shanghai", "UTC")),
        st.lists(st.builds(Device, odd, odd), max_size=4).map(tuple),
        st.lists(routes, max_size=4).map(tuple),
        st.lists(odd.map(lambda text: f"/{text}"), max_size=3).map(lambda more: ("/", *more)),
        st.dictionaries(st.sampled_from(("devices", "routes", "disks", "timezone")), odd),
    ),
    st.sampled_from((None, HQ, f"{HQ}:443")),
)
def test_whatever_the_machine_shows_check_takes_the_file(tmp_path_factory: Any, seen: Survey, hq: str | None):
    loaded(first_site(seen, hq), tmp_path_factory.mktemp("site"))


@given(odd.filter(is_text))
def test_any_word_is_read_back_as_it_was(word: str):
    assert parse("word", f"word: {scalar(word)}\n").data == {"word": word}


# ---------------------------------------------------------------- the command


def init(*words: object) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, words)])


def test_init_writes_a_file_that_check_takes(tmp_path: Path):
    path = tmp_path / "site.yaml"

    written = init("--output", path)
    checked = CliRunner().invoke(main, ["check", "-c", str(path)])

    assert written.exit_code == 0, written.output
    assert f"changeover doctor -c {path}" in written.stdout
    assert checked.exit_code == 0, checked.output


def test_init_says_in_json_what_it_saw(tmp_path: Path):
    path = tmp_path / "site.yaml"

    told = json.loads(init("--output", path, "--hq", HQ, "--json").stdout)

    assert told["written"] == str(path)
    assert told["fill_ins"] == fill_ins(path.read_text(encoding="utf-8"))
    assert told["seen"].keys() == {"hostname", "timezone", "ups", "default_routes", "disks", "not_seen"}


def test_the_group_of_the_directory_may_read_what_init_wrote(tmp_path: Path):
    """The service is of the group of /etc/changeover; the umask of a hardened root would keep the file from it."""
    folder = tmp_path / "changeover"
    folder.mkdir()
    os.chown(folder, -1, 65534)
    before = os.umask(0o077)
    try:
        init("--output", folder / "site.yaml")
    finally:
        os.umask(before)

    seen = (folder / "site.yaml").stat()
    assert (seen.st_gid, stat.S_IMODE(seen.st_mode)) == (65534, 0o640)


def test_init_never_writes_over_a_file(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text("site: {id: mine}\n", encoding="utf-8")

    refused = init("--output", path)

    assert refused.exit_code == 1
    assert "is there already and stays as it is" in refused.stderr
    assert path.read_text(encoding="utf-8") == "site: {id: mine}\n"


def test_init_leaves_a_link_that_leads_nowhere_alone(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.symlink_to(tmp_path / "elsewhere")

    refused = init("--output", path)

    assert refused.exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_init_says_where_it_may_not_write(tmp_path: Path):
    refused = init("--output", tmp_path / "nowhere" / "site.yaml")

    assert refused.exit_code == 1
    assert "cannot be written: No such file or directory; name another place with --output" in refused.stderr


def test_init_refuses_a_headquarters_that_is_a_name(tmp_path: Path):
    refused = init("--output", tmp_path / "site.yaml", "--hq", "hq.example")

    assert refused.exit_code == 2
    assert "names are not looked up" in refused.stderr
    assert not (tmp_path / "site.yaml").exists()
