"""A hand-made site and a driver for the core: no config, no loop, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from agent.core import invariants
from agent.core.engine import Stepped, step
from agent.core.judge import Condition, Op
from agent.core.ladders import line_alarms, path_alarms, ups_alarms
from agent.core.model import (
    At,
    CommandEnded,
    CommandSent,
    Effect,
    Event,
    Mode,
    Observation,
    Observed,
    Outcome,
    Perform,
    PointId,
    PointSpec,
    Quality,
    Request,
    Started,
    Ticked,
    Value,
)
from agent.core.profiles import PROFILES
from agent.core.records import Body, Record
from agent.core.runbook import Failback, IfDenied, Limits, OnReturn, Runbook, Step
from agent.core.site import Equipment, LineFacts, Site, make_site
from agent.core.state import State
from agent.core.topology import candidates_of

RUNGS = ("cpe", "edge", "hq", "second_site")
B = TypeVar("B", bound=Body)
UPS_POINTS = ("on_battery", "mains_present", "battery_low", "battery_runtime_s", "battery_charge_ratio")


def line(
    name: str, role: str, *, port: bool = True, provider: str | None = None, rungs: tuple[str, ...] = RUNGS
) -> Equipment:
    facts = LineFacts(role, rungs, PROFILES["fast"].bad_loss_ratio, port, False, provider)
    return Equipment(name, "line", line=facts)


def step_to(line_name: str, other: str) -> Step:
    return Step(
        verb="route",
        wanted=(("from", other), ("to", line_name)),
        proof=(
            Condition(PointId("path.answered"), Op.IS, True),
            Condition(PointId("path.line"), Op.IS, line_name),
        ),
        start=(Condition(PointId("path.line"), Op.IS, other),),
        within_s=10.0,
        if_denied=IfDenied.UNDO,
        resendable=True,
    )


def swap(
    mode: Mode = Mode.AUTO, *, budget: int | None = 2, good_for_s: float = 60.0, per_day: int = 2
) -> tuple[Runbook, Runbook]:
    failback = Failback(True, good_for_s, per_day)
    there = Runbook(
        name="standby",
        digest="d",
        mode=mode,
        cause="line",
        leaves="wan1",
        enters="wan2",
        steps=(step_to("wan2", "wan1"),),
        limits=Limits(budget, 3600.0, 0.0),
        on_return=OnReturn.FINISH,
        arrangement="on_standby_line",
        lock="lines",
        failback=failback,
    )
    back = replace(
        there,
        name="standby.return",
        cause=None,
        leaves="wan2",
        enters="wan1",
        steps=(step_to("wan1", "wan2"),),
        limits=Limits(None, 3600.0, 0.0),
        returns_from="on_standby_line",
    )
    return there, back


def in_two_steps(*, no_return: bool = False, on_return: OnReturn = OnReturn.UNDO) -> tuple[Runbook, Runbook]:
    """The swap with a second command after the route, such as telling the bank's router; it moves nothing here."""
    there, back = swap()
    tell = Step(
        verb="tell",
        wanted=(),
        proof=(Condition(PointId("path.answered"), Op.IS, True),),
        start=(Condition(PointId("path.line"), Op.IS, "wan2"),),
        within_s=10.0,
        if_denied=IfDenied.UNDO,
        resendable=False,
    )
    first = replace(there.steps[0], point_of_no_return=no_return)
    return replace(there, steps=(first, tell), on_return=on_return), back


def bank(
    *,
    books: tuple[Runbook, ...] | None = None,
    ups: tuple[str, ...] = ("ups-a",),
    lines: tuple[Equipment, ...] | None = None,
    boot_guard_s: float = 0.0,
    period_s: float = 1.0,
) -> Site:
    """A branch with UPSs, two `fast` lines and the path; every point is expected each *period_s*."""
    lines = lines if lines is not None else (line("wan1", "primary"), line("wan2", "standby"))
    equipment = {e.name: e for e in lines}
    equipment |= {name: Equipment(name, "ups", fed_by=("utility",)) for name in ups}
    equipment["path"] = Equipment("path", "path")
    points: dict[PointId, PointSpec] = {}
    alarms = list(path_alarms("path"))
    for e in lines:
        assert e.line is not None
        for rung in e.line.rungs:
            for name in ("loss_ratio", "lost_in_row", "silent_s"):
                points[PointId(f"{e.name}.{rung}.{name}")] = PointSpec("", period_s, "")
        points[PointId(f"{e.name}.carrier")] = PointSpec("bool", period_s, "")
        alarms += line_alarms(e.name, PROFILES["fast"], e.line.rungs, has_port=e.line.has_port, has_service=False)
    for name in ups:
        points |= {PointId(f"{name}.{p}"): PointSpec("", period_s, "") for p in UPS_POINTS}
        alarms += ups_alarms(name)
    points[PointId("path.answered")] = PointSpec("bool", period_s, "")
    points[PointId("path.line")] = PointSpec("state", period_s, "")
    return make_site(
        id="b1",
        name="Branch one",
        language="en",
        digest="x",
        equipment=equipment,
        points=points,
        alarms=tuple(alarms),
        candidates=candidates_of(equipment, [a.key for a in alarms]),
        runbooks=books if books is not None else swap(),
        boot_guard_s=boot_guard_s,
    )


@dataclass
class Driver:
    """Drives the core by hand and keeps everything that it said. Time only moves when told to."""

    site: Site = field(default_factory=bank)
    state: State = field(default_factory=State)
    now_s: float = 1000.0
    boot: str = "boot-1"
    utc_offset_s: float = 1_700_000_000.0
    records: list[Record] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    lost_since: dict[str, float] = field(default_factory=dict)  # rung -> send time of its first lost probe

    def at(self) -> At:
        return At(self.boot, self.now_s, self.now_s + self.utc_offset_s)

    def send(self, event: Event) -> Stepped:
        before = self.state
        stepped = step(self.site, before, event, self.at())
        invariants.check(self.site, before, event, stepped, self.at())
        self.state = stepped.state
        self.records += stepped.records
        self.effects += stepped.effects
        return stepped

    def start(self) -> Driver:
        self.send(Started("1", "x", True))
        return self

    def wait(self, seconds: float, every: float = 1.0) -> None:
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s = min(end, self.now_s + every)
            self.send(Ticked())

    def see(self, values: Mapping[str, Value], *, since: float | None = None, quality: Quality = Quality.GOOD) -> None:
        fault = "timed_out" if quality is Quality.UNKNOWN else None
        self.send(
            Observed(
                tuple(
                    Observation(PointId(p), v, quality, self.now_s, self.now_s, "test", fault, since)
                    for p, v in values.items()
                )
            )
        )

    def rungs(
        self, name: str, dead: tuple[str, ...] = (), *, carrier: bool | None = True, loss: float | None = None
    ) -> None:
        """See every rung of a line: answering, but for those in *dead*."""
        facts = self.site.equipment[name].line
        assert facts is not None
        for rung in facts.rungs:
            lost = 4 if rung in dead else 0
            if lost:
                self.lost_since.setdefault(f"{name}.{rung}", self.now_s - 0.2)
            else:
                self.lost_since.pop(f"{name}.{rung}", None)
            ratio = (0.2 if rung in dead else 0.0) if loss is None else loss
            self.see(
                {
                    f"{name}.{rung}.lost_in_row": lost,
                    f"{name}.{rung}.loss_ratio": ratio,
                    f"{name}.{rung}.silent_s": 0.2 if lost else 0.0,
                },
                since=self.lost_since.get(f"{name}.{rung}"),
            )
        if carrier is not None:
            self.see({f"{name}.carrier": carrier})

    def all_good(self) -> None:
        for e in self.site.equipment.values():
            if e.line is not None:
                self.rungs(e.name)
            elif e.kind == "ups":
                self.mains(e.name, present=True)
        self.path("wan1")

    def mains(self, name: str, *, present: bool) -> None:
        self.see(
            {
                f"{name}.on_battery": not present,
                f"{name}.mains_present": present,
                f"{name}.battery_low": False,
                f"{name}.battery_runtime_s": 9000.0,
                f"{name}.battery_charge_ratio": 1.0,
            }
        )

    def path(self, via: str | None) -> None:
        self.see({"path.answered": via is not None})
        if via is not None:
            self.see({"path.line": via})

    def answer(self, outcome: Outcome = Outcome.DONE) -> Request:
        """Let the executor accept and answer the last command."""
        request = self.commands()[-1]
        self.send(CommandSent(request.key))
        self.now_s += 0.01
        self.send(CommandEnded(request.key, outcome))
        return request

    def commands(self) -> list[Request]:
        return [e.request for e in self.effects if isinstance(e, Perform)]

    def bodies(self, kind: type[B]) -> list[B]:
        return [r.body for r in self.records if isinstance(r.body, kind)]

    def keep_good(
        self, seconds: float, *, via: str = "wan1", dead: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """Let time pass with fresh observations each second."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            for e in self.site.equipment.values():
                if e.line is not None:
                    self.rungs(e.name, (dead or {}).get(e.name, ()))
                elif e.kind == "ups":
                    self.mains(e.name, present=True)
            self.path(via)
            self.send(Ticked())
