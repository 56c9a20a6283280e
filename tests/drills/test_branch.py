"""The simulated branch: its site file is right, its traffic goes by its route table, its faults do what they say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.config import load
from agent.core.model import Mode, Observation, Quality
from agent.errors import ProbeFault
from agent.ports import ProbeContext, Route
from drills.simsite.branch import FAULTS, UPS, SimBranch
from drills.simsite.far_end import LINES
from probes import PROBES
from probes.nut import NutConfig, NutProbe
from probes.path import PathProbe
from runbooks import ACTIONS
from tests.drills.far_side_contract import PATIENCE_S, SHORT_S, lost, told

BETTER = Route("default", LINES["wan2"].cpe, "", 90, ours=True)


@pytest.fixture
async def branch() -> AsyncIterator[SimBranch]:
    async with SimBranch() as branch:
        yield branch


async def statuses(branch: SimBranch) -> dict[str, object]:
    """Return what a NUT client reads of the UPS."""
    host, port = branch.ups.address
    probe = NutProbe(UPS, NutConfig(UPS, host, port))
    try:
        return {**await probe.poll("status"), **await probe.poll("variables")}
    finally:
        await probe.close()


# ---------------------------------------------------------------- the site file


@pytest.mark.parametrize(("language", "name"), [("en", "Demo branch"), ("zh", "演示支行")])
async def test_the_site_file_is_right_and_acts_by_itself(branch: SimBranch, tmp_path: Path, language: str, name: str):
    config = load(branch.site_file(tmp_path, language), PROBES, ACTIONS)

    swap = config.site.runbooks["standby"]
    assert (config.site.language, config.site.name) == (language, name)
    assert (swap.mode, swap.leaves, swap.enters, swap.limits.budget) == (Mode.AUTO, "wan1", "wan2", None)
    assert swap.failback is not None
    assert swap.failback.good_for_s == 10.0
    assert config.site.boot_guard_s == 0.0
    assert {config.state_dir.parent, config.server.socket.parent} == {tmp_path}
    assert set(config.probe_configs) == {UPS, "wan1", "wan2", "path", "this-host"}


async def test_a_directory_with_marks_of_yaml_in_its_name_is_no_trouble(branch: SimBranch, tmp_path: Path):
    directory = tmp_path / "a: 'b' #c ${d}"
    directory.mkdir()

    config = load(branch.site_file(directory), PROBES, ACTIONS)

    assert config.state_dir == directory / "state"


async def test_a_language_that_it_does_not_have_is_refused(branch: SimBranch, tmp_path: Path):
    with pytest.raises(ValueError, match="language"):
        branch.site_file(tmp_path, "tlh")

    assert not os.listdir(tmp_path)


# ---------------------------------------------------------------- the way out


async def test_traffic_goes_by_the_best_default_route(branch: SimBranch):
    target = branch.far_ends.target("wan1", "hq")
    assert await branch.opener(target, PATIENCE_S) == LINES["wan1"].source

    await branch.routes.add(BETTER)
    assert await branch.opener(target, PATIENCE_S) == LINES["wan2"].source

    await branch.routes.remove(BETTER)
    assert await branch.opener(target, PATIENCE_S) == LINES["wan1"].source


async def test_traffic_by_a_broken_line_is_lost_though_the_other_would_carry_it(branch: SimBranch):
    target = branch.far_ends.target("wan1", "hq")
    branch.break_line("wan1")

    with pytest.raises(ProbeFault, match="timed_out"):
        await branch.opener(target, SHORT_S)
    await branch.routes.add(BETTER)
    assert await branch.opener(target, PATIENCE_S) == LINES["wan2"].source


async def test_without_a_route_by_any_line_nothing_leaves(branch: SimBranch):
    elsewhere = Route("default", "192.0.2.1", "wan1", 5, ours=True)
    await branch.routes.add(elsewhere)
    before = branch.far_ends.calls

    with pytest.raises(ProbeFault, match="unreachable"):
        await branch.opener(branch.far_ends.target("wan1", "hq"), PATIENCE_S)
    assert branch.far_ends.calls == before


async def test_the_path_probe_names_the_line_by_which_the_answer_came(branch: SimBranch, tmp_path: Path):
    config = load(branch.site_file(tmp_path), PROBES, ACTIONS)
    around = branch.surroundings(SystemClock())
    probe = PathProbe("path", config.probe_configs["path"][1], ProbeContext(around.clock, config.lines, around.opener))
    news: asyncio.Queue[Observation] = asyncio.Queue()
    task = asyncio.create_task(probe.run(lambda seen: [news.put_nowait(one) for one in seen] and None))

    async def until(point: str, value: object) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                one = await news.get()
                if (str(one.point), one.value, one.quality) == (point, value, Quality.GOOD):
                    return

    try:
        await until("path.line", "wan1")
        await branch.routes.add(BETTER)
        probe.look()
        await until("path.line", "wan2")
        branch.break_line("wan2")
        probe.look()
        await until("path.answered", False)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---------------------------------------------------------------- faults


async def test_the_ups_tells_mains_battery_and_low(branch: SimBranch):
    assert (await statuses(branch))["status"] == "OL"

    branch.begin("mains_absent")
    seen = await statuses(branch)
    assert (seen["mains_present"], seen["on_battery"], seen["battery_low"]) == (False, True, False)
    branch.begin("battery_low")
    seen = await statuses(branch)
    assert (seen["on_battery"], seen["battery_low"], seen["battery_runtime_s"]) == (True, True, 240.0)
    branch.end("mains_absent")
    assert (await statuses(branch))["status"] == "OL LB"
    branch.end("battery_low")
    seen = await statuses(branch)
    assert (seen["status"], seen["battery_charge_ratio"]) == ("OL", 1.0)


async def test_every_fault_begins_and_ends_and_leaves_the_branch_as_it_was(branch: SimBranch):
    before = dict(branch.ups.ups[UPS])
    targets = [(branch.far_ends.target(line, "hq"), LINES[line].source) for line in LINES]
    for name in FAULTS:
        branch.begin(name)
        assert branch.standing == {name}
        branch.end(name)
        branch.end(name)

        assert branch.standing == set()
        assert branch.ups.ups[UPS] == before
        assert [await told(target, source) for target, source in targets] == [source for _, source in targets]


async def test_of_two_faults_of_one_line_the_later_stands_and_the_earlier_ends_nothing(branch: SimBranch):
    branch.begin("wan1_lossy")
    branch.begin("wan1_dead")
    branch.end("wan1_lossy")

    assert branch.standing == {"wan1_dead"}
    assert await lost(branch.far_ends.target("wan1", "hq")) == "timed_out"


async def test_an_unknown_fault_is_refused_and_changes_nothing(branch: SimBranch):
    with pytest.raises(KeyError):
        branch.begin("moon_absent")

    assert branch.standing == set()
