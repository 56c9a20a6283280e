"""The probe of the agent's own host, on this very host."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent.core.model import At
from agent.ports import ProbeContext, Suspect
from probes.local import KIND, LocalConfig, LocalProbe, fullest


@dataclass
class SetClock:
    """A clock that shows what it is set to."""

    boot_s: float = 1000.0

    def now(self) -> At:
        return At("boot", self.boot_s, self.boot_s)


def probe_with(clock: SetClock, config: LocalConfig | None = None) -> LocalProbe:
    return LocalProbe("host-a", config or LocalConfig(), clock)


async def test_every_ratio_is_within_zero_and_one():
    readings = await probe_with(SetClock()).poll("all")

    ratios = {point: value for point, value in readings.items() if point.endswith("_ratio")}
    assert {"memory_ratio", "disk_ratio"} <= ratios.keys()
    assert all(0 <= value <= 1 for value in ratios.values())
    assert readings["load_1m"] >= 0
    assert readings["uptime_s"] == 1000.0


async def test_first_processor_ratio_is_left_out_since_it_has_no_start():
    clock = SetClock()
    probe = probe_with(clock)

    assert "cpu_ratio" not in await probe.poll("all")
    clock.boot_s += 5
    assert 0 <= (await probe.poll("all"))["cpu_ratio"] <= 1


async def test_burst_of_looks_gives_no_processor_ratio_of_no_time():
    clock = SetClock()
    probe = probe_with(clock)
    await probe.poll("all")
    clock.boot_s += 5
    await probe.poll("all")
    clock.boot_s += 0.1

    assert "cpu_ratio" not in await probe.poll("all")


def test_disk_that_cannot_be_looked_at_makes_the_ratio_suspect():
    seen = fullest(("/", "/nowhere/at/all"))

    assert isinstance(seen, Suspect)
    assert seen.value == pytest.approx(fullest(("/",)), abs=0.05)
    assert seen.reason == "/nowhere/at/all: No such file or directory"


async def test_readings_have_their_specs_and_come_from_the_kernel():
    config = LocalConfig(period_s=2.0)
    probe = KIND.make("host-a", config, ProbeContext(SetClock(), {}))
    specs = KIND.specs(config)

    assert isinstance(probe, LocalProbe)
    assert (await probe.poll("all")).keys() <= specs.keys()
    assert probe.lanes[0].points == tuple(specs)
    assert {spec.period_s for spec in specs.values()} == {2.0}
    assert KIND.channel("host-a", config) == probe.channel == "kernel"


@pytest.mark.parametrize(
    ("disks", "period_s", "said"),
    [((), 5.0, "disks: name at least one"), (("data",), 5.0, "full paths"), (("/",), 0.0, "period_s: must be above 0")],
)
def test_config_that_cannot_work_is_refused_with_its_key(disks: tuple[str, ...], period_s: float, said: str):
    with pytest.raises(ValueError, match=said):
        LocalConfig(disks, period_s)
