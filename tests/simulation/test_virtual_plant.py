"""The plant's probes tell what the real ones would: the same points, the same order of times, the same window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest

from agent.core.model import Observation, Quality
from agent.core.profiles import PROFILES
from agent.ports import Route
from probes.line_window import LineWindow
from tests.fakes.heard import Heard
from tests.fakes.virtual_plant import GAP_S, SETTLES_S, LineFault, Plant, PlantLine, PlantPath, plant_probes
from tests.fakes.virtual_site import SiteClock, SlowTable, Timing, pass_time, site_config, virtually

QUIET_S: Final = 5.0


class Bench:
    """The plant with its probes running, each heard by its name."""

    def __init__(self, folder: Path) -> None:
        config = site_config(folder)
        self.clock = SiteClock(asyncio.get_running_loop())
        self.table = SlowTable(Timing())
        self.plant = Plant(config.lines, self.table, self.clock)
        self.probes = {p.equipment: p for p in plant_probes(config.probe_configs, self.plant, self.clock, 1.0)}
        self.heard = {name: Heard() for name in self.probes}
        self.tasks = [
            asyncio.create_task(probe.run(self.heard[name].publish))
            for name, probe in self.probes.items()
            if isinstance(probe, PlantLine | PlantPath)
        ]

    def first(self, name: str, point: str, is_it: Callable[[Observation], bool], since: float) -> Observation:
        """Return the first observation of *point*, told after *since*, for which *is_it* holds."""
        full = f"{name}.{point}"
        return next(o for o in self.heard[name].seen if o.point == full and o.answered_at >= since and is_it(o))


def on_bench(folder: Path, main: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Run *main* with a bench that has been quiet for a while."""

    async def run() -> None:
        bench = Bench(folder)
        await pass_time(QUIET_S)
        await main(bench)
        for task in bench.tasks:
            task.cancel()

    virtually(run())


def test_every_point_that_is_told_is_one_that_the_real_probe_names(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.plant.kill("wan1")
        await pass_time(3.0)
        for name, probe in bench.probes.items():
            told = {o.point.removeprefix(f"{name}.") for o in bench.heard[name].seen}
            assert told <= probe.specs.keys()
            assert told or not hasattr(probe, "run")

    on_bench(tmp_path, main)


def test_the_first_loss_starts_a_burst_on_every_line_and_its_result_is_told_at_once(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await pass_time(0.037)
        died_at = bench.clock.now().boot_s
        bench.plant.kill("wan1")
        await pass_time(0.5)
        dead = bench.first("wan1", "hq.lost_in_row", lambda o: o.value == 4, died_at)
        other = bench.first("wan2", "hq.lost_in_row", lambda o: True, died_at)

        assert dead.answered_at - died_at <= GAP_S + 2 * SETTLES_S + 0.05
        assert dead.since is not None
        assert died_at <= dead.since < dead.asked_at <= dead.answered_at
        assert (other.value, other.quality) == (0, Quality.GOOD)
        assert other.asked_at > dead.since
        assert bench.first("wan1", "cpe.lost_in_row", lambda o: True, died_at).value == 0

    on_bench(tmp_path, main)


@pytest.mark.parametrize("fault", [LineFault(frozenset({"hq"})), LineFault(loss_ratio=0.3)])
def test_the_window_says_what_the_real_window_would(tmp_path: Path, fault: LineFault) -> None:
    """The real window is fed probe by probe: of ten, each that the fault's share wants is left unanswered."""

    async def main(bench: Bench) -> None:
        window = LineWindow(PROFILES["fast"].window_s)
        begin = bench.clock.now().boot_s
        for number in range(80):
            at = begin + number * GAP_S
            if number == 20:
                bench.plant.set_line("wan1", fault)
            if number == 50:
                assert_agrees(bench, window)
                bench.plant.mend("wan1")
            window.sent(number, at)
            if not 20 <= number < 50 or (number % 10) >= 10 * fault.lost("hq"):
                window.answered(number, at + 0.005)
            await pass_time(GAP_S)
            window.settle(at + GAP_S)
        assert_agrees(bench, window)

    def assert_agrees(bench: Bench, window: LineWindow) -> None:
        told = {o.point.rpartition(".")[2]: o.value for o in bench.probes["wan1"].observe() if ".hq." in o.point}
        assert window.loss_ratio is not None
        assert told["loss_ratio"] == pytest.approx(window.loss_ratio, abs=0.12)
        if fault.dead:
            # The burst, which the window of this test does not have, counts too.
            assert told["lost_in_row"] == pytest.approx(window.lost_in_row, abs=4)
            assert (told["lost_in_row"] == 0) == (window.lost_in_row == 0)

    on_bench(tmp_path, main)


def test_the_path_follows_the_routes_and_an_echo_without_answer_is_told_after_its_deadline(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        path = bench.heard["path"]
        assert path.values("path.line")[-1] == "wan1"
        died_at = bench.clock.now().boot_s
        bench.plant.kill("wan1")
        await pass_time(3.0)
        silent = bench.first("path", "answered", lambda o: o.value is False, died_at)
        assert silent.answered_at - silent.asked_at == pytest.approx(1.0)
        await bench.table.add(Route("default", "192.0.2.129", "eth2", 90, True))
        bench.probes["path"].look()
        moved_at = bench.clock.now().boot_s
        await pass_time(0.5)

        seen = bench.first("path", "line", lambda o: o.value == "wan2", moved_at)
        assert seen.answered_at - moved_at < 0.05

    on_bench(tmp_path, main)
