"""A small branch around the core: lines that can break, a route that commands move, an executor with a record, crashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.engine import Stepped, replay, why_not_leave
from agent.core.model import (
    ApproveAsked,
    AskOutcome,
    Choice,
    CommandEnded,
    CommandSent,
    Effect,
    Event,
    EvidenceExpired,
    JournalHealth,
    Observation,
    Observed,
    Outcome,
    Perform,
    PointId,
    Quality,
    ReleaseAsked,
    Request,
    RunChosen,
    Started,
    Ticked,
    Tier,
    Value,
)
from agent.core.state import State
from tests.fakes.sites import Driver

LINE_STATES: Mapping[str, tuple[str, ...]] = {
    "good": (),
    "hq_dead": ("hq",),
    "far_dead": ("edge", "hq"),
    "all_dead": ("cpe", "edge", "hq"),
}
UPS_STATES: Mapping[str, Mapping[str, Value]] = {
    "mains": {"on_battery": False, "mains_present": True, "battery_low": False},
    "battery": {"on_battery": True, "mains_present": False, "battery_low": False},
    "low": {"on_battery": True, "mains_present": False, "battery_low": True},
}


@dataclass
class World:
    """
    What stands around the core. Commands and questions wait in `pending` until `executor` handles the oldest.

    `ledger` is the executor's own record: what became of each key. `route` is the line that traffic takes.
    """

    driver: Driver
    route: str = "wan1"
    lines: dict[str, str] = field(default_factory=lambda: {"wan1": "good", "wan2": "good"})
    pending: list[Effect] = field(default_factory=list)
    ledger: dict[str, Outcome] = field(default_factory=dict)
    boots: int = 1
    last_step: int | None = None  # where the records of the last step begin, None once something of it has left

    def send(self, event: Event) -> Stepped:
        self.last_step = len(self.driver.records)
        stepped = self.driver.send(event)
        self.pending += [e for e in stepped.effects if isinstance(e, Perform | AskOutcome)]
        self.check_incidents()
        locks = [self.driver.site.runbooks[run.runbook].lock for run in self.driver.state.durable.open_runs()]
        assert len(locks) == len(set(locks)), "two open runs share a lock"
        return stepped

    def check_incidents(self) -> None:
        """Every alarm that stands belongs to exactly one open incident."""
        durable = self.driver.state.durable
        owned = [alarm for incident in durable.open_incidents() for alarm in incident.alarms]
        standing = [key for key, alarm in durable.alarms.items() if alarm.tier() is not Tier.OK]
        assert sorted(owned) == sorted(standing), f"standing {sorted(standing)}, owned {sorted(owned)}"

    def start(self, *, intact: bool = True) -> None:
        self.send(Started("1", "x", intact, "" if intact else "a record is altered"))

    def tick(self, seconds: float) -> None:
        self.driver.now_s += seconds
        self.send(Ticked())

    # ------------------------------------------------------------ seeing

    def see(self, values: Mapping[str, Value], quality: Quality = Quality.GOOD, *, age_s: float = 0.0) -> None:
        asked_at = self.driver.now_s - age_s
        fault = None if quality is Quality.GOOD else "timed_out"
        seen = [Observation(PointId(p), v, quality, asked_at, asked_at, "test", fault) for p, v in values.items()]
        self.send(Observed(tuple(seen)))

    def line_values(self, name: str, *, loss: float = 0.0) -> dict[str, Value]:
        dead = LINE_STATES[self.lines[name]]
        values: dict[str, Value] = {f"{name}.carrier": True}
        facts = self.driver.site.equipment[name].line
        assert facts is not None
        for rung in facts.rungs:
            lost = rung in dead
            values |= {
                f"{name}.{rung}.lost_in_row": 4 if lost else 0,
                f"{name}.{rung}.loss_ratio": 0.5 if lost else loss,
                f"{name}.{rung}.silent_s": 1.0 if lost else 0.0,
            }
        return values

    def path_values(self) -> dict[str, Value]:
        reaches = "hq" not in LINE_STATES[self.lines[self.route]]
        return {"path.answered": reaches, "path.line": self.route if reaches else None}

    def ups_values(self, state: str) -> dict[str, Value]:
        flags = {f"ups-a.{name}": value for name, value in UPS_STATES[state].items()}
        return {**flags, "ups-a.battery_runtime_s": 9000.0, "ups-a.battery_charge_ratio": 1.0}

    def see_all(self, *, ups: str = "mains") -> None:
        lines = {point: value for name in self.lines for point, value in self.line_values(name).items()}
        self.see({**lines, **self.ups_values(ups), **self.path_values()})

    # ------------------------------------------------------------ acting

    def move(self, request: Request) -> None:
        if request.verb == "route":
            self.route = str(dict(request.wanted)["from" if request.undo else "to"])

    def executor(self, fate: str = "works") -> None:
        """Handle the oldest waiting command or question; *fate* says how well the executor and the plant do."""
        if not self.pending:
            return
        effect = self.pending.pop(0)
        if isinstance(effect, AskOutcome):
            self.send(CommandEnded(effect.key, self.ledger.get(effect.key, Outcome.NEVER)))
            return
        assert isinstance(effect, Perform)
        request = effect.request
        if why_not_leave(self.driver.site, self.driver.state, request, self.driver.at()) is not None:
            self.send(EvidenceExpired(request.key))
        elif request.key in self.ledger:
            self.send(CommandEnded(request.key, self.ledger[request.key]))
        else:
            self.perform(request, fate)

    def perform(self, request: Request, fate: str) -> None:
        """Perform a command that is new to the executor."""
        if fate == "refused":
            self.ledger[request.key] = Outcome.REFUSED
            self.send(CommandEnded(request.key, Outcome.REFUSED))
            return
        self.ledger[request.key] = Outcome.UNCERTAIN
        self.last_step = None
        if fate not in ("fails", "uncertain"):
            self.move(request)
        if fate == "lost":
            return
        self.send(CommandSent(request.key))
        self.driver.now_s += 20.0 if fate == "late" else 0.05
        outcomes = {"fails": Outcome.FAILED, "fails_but_moved": Outcome.FAILED, "uncertain": Outcome.UNCERTAIN}
        self.ledger[request.key] = outcomes.get(fate, Outcome.DONE)
        if fate == "late":
            self.send(Ticked())
        self.send(CommandEnded(request.key, self.ledger[request.key]))
        if fate == "twice":
            self.send(CommandSent(request.key))
            self.send(CommandEnded(request.key, self.ledger[request.key]))

    # ------------------------------------------------------------ crashing

    def restart(self, *, new_boot: bool = False, lose: int = 0, intact: bool = True, away_s: float = 2.0) -> None:
        """Come back from the records alone; of the last step *lose* records had not become durable."""
        driver = self.driver
        if self.last_step is not None:
            del driver.records[max(self.last_step, len(driver.records) - lose) :]
        self.pending.clear()
        driver.state = State(replay(driver.records, State()).durable)
        driver.now_s += away_s
        if new_boot:
            self.boots += 1
            driver.boot = f"boot-{self.boots}"
            driver.utc_offset_s += driver.now_s - 20.0
            driver.now_s = 20.0
        self.start(intact=intact)

    # ------------------------------------------------------------ quiet

    def heal(self) -> None:
        """Every fault ends, and people let the agent go on with what it stopped."""
        self.lines = dict.fromkeys(self.lines, "good")
        if self.driver.state.volatile.safe_reason is not None:
            self.restart()
        self.send(JournalHealth(True))
        self.send(ReleaseAsked("wang"))
        for run in self.driver.state.durable.open_runs():
            if run.paused:
                self.send(RunChosen("wang", run.id, Choice.GO_ON))

    def quiet(self, seconds: float, every: float) -> None:
        """Let time pass in which everything is good, every command works, and a person approves what asks."""
        for _ in range(int(seconds / every)):
            self.driver.now_s += every
            self.see_all()
            for run in self.driver.state.durable.open_runs():
                self.send(ApproveAsked("li", run.id))
            while self.pending:
                self.executor()
            self.send(Ticked())
