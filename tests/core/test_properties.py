"""No order of events breaks an invariant, replay gives the same state, and when all is good again everything ends."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.engine import replay
from agent.core.model import (
    ApproveAsked,
    Choice,
    ClockStepped,
    CommandEnded,
    HoldAsked,
    JournalHealth,
    Mode,
    Outcome,
    Quality,
    ReleaseAsked,
    ResetAsked,
    RunChosen,
    TimeGap,
)
from agent.core.runbook import OnReturn, Runbook
from agent.core.state import State
from tests.fakes.sites import Driver, bank, in_two_steps, line, swap
from tests.fakes.world import LINE_STATES, UPS_STATES, World

PERIOD_S = 10.0
RUNGS = ("cpe", "edge", "hq")
NAMES = st.sampled_from(("wan1", "wan2"))
RUNS = st.sampled_from(("R1", "R2", "R3"))
FATES = ("works", "works", "fails", "fails_but_moved", "lost", "late", "twice", "uncertain", "refused")
GAPS = st.sampled_from((0.02, 0.3, 1.0, 4.0, 11.0, 31.0, 61.0, 700.0))

Op = Callable[[World], object]


def set_line(name: str, state: str) -> Op:
    """A line breaks or heals, and the burst on the other one shows at once how that stands."""

    def op(world: World) -> None:
        world.lines[name] = state
        for values in (world.line_values(name), world.line_values("wan2" if name == "wan1" else "wan1")):
            world.driver.now_s += 0.02
            world.see(values)
        world.see(world.path_values())

    return op


def live(passes: int, fate: str) -> Op:
    """Some seconds pass as they should: everything is seen, commands are taken."""

    def op(world: World) -> None:
        for _ in range(passes):
            world.driver.now_s += 2.0
            world.see_all()
            world.executor(fate)

    return op


def recover(world: World) -> None:
    """The primary is good for long enough to go home."""
    set_line("wan1", "good")(world)
    live(34, "works")(world)


def see_line(name: str, quality: Quality, loss: float, age_s: float) -> Op:
    def op(world: World) -> None:
        values = world.line_values(name, loss=loss)
        world.see(values if quality is Quality.GOOD else dict.fromkeys(values), quality, age_s=age_s)

    return op


def see_ups(state: str, quality: Quality) -> Op:
    return lambda world: world.see(world.ups_values(state), quality)


def see_all(seconds: float) -> Op:
    def op(world: World) -> None:
        world.driver.now_s += seconds
        world.see_all()

    return op


def see_path(quality: Quality) -> Op:
    def op(world: World) -> None:
        values = world.path_values()
        world.see(values if quality is Quality.GOOD else dict.fromkeys(values), quality)

    return op


def gap(seconds: float) -> Op:
    def op(world: World) -> None:
        world.driver.now_s += seconds
        world.send(TimeGap(seconds, "suspended"))

    return op


def clock(step_s: float) -> Op:
    def op(world: World) -> None:
        world.driver.utc_offset_s += step_s
        world.send(ClockStepped(step_s))

    return op


def say(number: int, outcome: Outcome) -> Op:
    """The executor says something of a key that nobody asked about, or again."""
    keys = ("R1.0.1", "R1.0.2u", "R2.0.1")
    return lambda world: world.send(CommandEnded(keys[number % len(keys)], outcome))


QUALITIES = st.sampled_from(tuple(Quality))
OPS: st.SearchStrategy[Op] = st.one_of(
    st.builds(set_line, NAMES, st.sampled_from(tuple(LINE_STATES))),
    st.just(set_line("wan1", "far_dead")),
    st.just(recover),
    st.builds(live, st.integers(1, 12), st.sampled_from(FATES)),
    st.builds(live, st.integers(1, 12), st.sampled_from(FATES)),
    st.builds(see_line, NAMES, QUALITIES, st.sampled_from((0.0, 0.1, 0.3)), st.sampled_from((0.0, 0.0, 6.0, 90.0))),
    st.builds(see_ups, st.sampled_from(tuple(UPS_STATES)), QUALITIES),
    st.builds(see_path, QUALITIES),
    st.builds(see_all, GAPS),
    st.builds(lambda s: lambda world: world.tick(s), GAPS),
    st.builds(lambda fate: lambda world: world.executor(fate), st.sampled_from(FATES)),
    st.builds(lambda fate: lambda world: world.executor(fate), st.sampled_from(FATES)),
    st.builds(gap, GAPS),
    st.builds(clock, st.sampled_from((-86_400.0, -5.0, 90.0, 40 * 86_400.0))),
    st.builds(
        lambda boot, lose, ok: lambda world: world.restart(new_boot=boot, lose=lose, intact=ok),
        st.booleans(),
        st.integers(0, 4),
        st.sampled_from((True, True, True, False)),
    ),
    st.builds(
        lambda finish, for_s: lambda world: world.send(HoldAsked("wang", "work", finish, for_s)),
        st.booleans(),
        st.sampled_from((None, 30.0)),
    ),
    st.just(lambda world: world.send(ReleaseAsked("wang"))),
    st.builds(
        lambda run, choice: lambda world: world.send(RunChosen("li", run, choice)), RUNS, st.sampled_from(tuple(Choice))
    ),
    st.builds(lambda run: lambda world: world.send(ApproveAsked("li", run)), RUNS),
    st.just(lambda world: world.send(ResetAsked("li", "standby"))),
    st.builds(lambda ok: lambda world: world.send(JournalHealth(ok, "" if ok else "disk full")), st.booleans()),
    st.builds(say, st.integers(0, 2), st.sampled_from(tuple(Outcome))),
)
Books = tuple[Runbook, Runbook]
BOOKS: st.SearchStrategy[Books] = st.sampled_from(
    (swap(), swap(budget=None), swap(Mode.ASK), in_two_steps(), in_two_steps(no_return=True, on_return=OnReturn.UNDO))
)


def world_of(books: Books) -> World:
    lines = (line("wan1", "primary", rungs=RUNGS), line("wan2", "standby", rungs=RUNGS))
    world = World(Driver(bank(books=books, lines=lines, period_s=PERIOD_S, boot_guard_s=30.0)))
    world.start()
    for _ in range(8):
        see_all(10.0)(world)
    return world


def check_replay(world: World) -> None:
    assert replay(world.driver.records, State()).durable == world.driver.state.durable


@given(BOOKS, st.lists(OPS, min_size=10, max_size=40))
@settings(max_examples=400)
def test_no_order_of_events_breaks_an_invariant_and_replay_gives_the_same_state(books: Books, ops: list[Op]) -> None:
    """The driver checks every invariant after every event; nothing else may be raised either."""
    world = world_of(books)

    for op in ops:
        op(world)

    check_replay(world)


@given(BOOKS, st.lists(OPS, min_size=8, max_size=30))
@settings(max_examples=60)
def test_when_all_is_good_for_twenty_minutes_no_incident_and_no_run_is_open(books: Books, ops: list[Op]) -> None:
    world = world_of(books)
    for op in ops:
        op(world)

    world.heal()
    world.quiet(1200.0, every=PERIOD_S)

    durable = world.driver.state.durable
    assert durable.open_incidents() == []
    assert durable.open_runs() == []
    assert durable.alarms == {}
    check_replay(world)
