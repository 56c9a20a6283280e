"""Verb `route`: traffic goes by the wanted line, the site's own routes stay, and doing it twice is harmless."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from agent.core.model import Request, Value
from agent.errors import ActionFailed
from agent.ports import Action, ActionContext, Route
from drills.simsite.routes import Connection, MemoryRouteTable
from runbooks import ACTIONS
from runbooks.actions.route import KIND, RouteParams
from tests.runbooks.route_contract import ADDRESSES, CONNECTIONS, OURS, PREFIX, PRIMARY, STANDBY

BIND = {"primary": "wan1", "standby": "wan2"}


@dataclass(frozen=True, slots=True)
class Line:
    """What the action reads of a line's config."""

    role: str
    gateway: str | None
    interface: str | None
    source: str | None = None


LINES = {
    "wan1": Line("primary", "192.0.2.1", "wan1"),
    "wan2": Line("standby", "198.51.100.1", "wan2"),
    "wan3": Line("standby", None, None),
}


def table_of(*routes: Route) -> MemoryRouteTable:
    return MemoryRouteTable(routes, ADDRESSES, CONNECTIONS)


def bound(table: MemoryRouteTable) -> Action:
    return KIND.make(ActionContext(LINES, table))


def request(to: str, from_: str, destination: str = "default", metric: Value = None) -> Request:
    wanted = (("to", to), ("from", from_), ("destination", destination), ("metric", metric))
    return Request("run-1/1/1", "route", wanted, False, "run-1", 1, 1, False, (), 1000.0)


TO_STANDBY = request("wan2", "wan1")
TO_PRIMARY = request("wan1", "wan2")


async def test_traffic_goes_by_the_standby_line_and_the_sites_own_routes_stay():
    table = table_of(PRIMARY, STANDBY, PREFIX)

    said = await bound(table).perform(TO_STANDBY)

    assert table.seen() == (OURS, PRIMARY, STANDBY)
    assert said == "default via 198.51.100.1 dev wan2 metric 90 (ours): by wan2; 2 connections of wan1 dropped"


async def test_only_connections_of_the_old_line_are_dropped():
    table = table_of(PRIMARY, STANDBY)

    await bound(table).perform(TO_STANDBY)

    assert table.connections == [Connection("192.0.2.2", "192.0.2.2"), Connection("10.0.0.5", "198.51.100.2")]


async def test_the_source_of_the_old_line_is_taken_when_it_names_one():
    table = table_of(PRIMARY, STANDBY)
    lines = LINES | {"wan1": replace(LINES["wan1"], source="198.51.100.2")}

    said = await KIND.make(ActionContext(lines, table)).perform(TO_STANDBY)

    assert said.endswith("; 1 connections of wan1 dropped")


async def test_performing_twice_changes_the_table_once():
    table = table_of(PRIMARY, STANDBY)
    action = bound(table)

    await action.perform(TO_STANDBY)
    await action.perform(replace(TO_STANDBY, resend=True))

    assert len(table.changes) == 1


async def test_undo_takes_our_route_away_and_undoing_twice_is_harmless():
    table = table_of(PRIMARY, STANDBY)
    action = bound(table)
    await action.perform(TO_STANDBY)

    await action.undo(TO_STANDBY)
    await action.undo(TO_STANDBY)

    assert table.seen() == (PRIMARY, STANDBY)
    assert len(table.changes) == 2


async def test_undo_of_what_was_never_performed_changes_nothing():
    table = table_of(PRIMARY, STANDBY)

    await bound(table).undo(TO_STANDBY)

    assert not table.changes


async def test_the_return_leaves_the_routes_as_they_were():
    table = table_of(PRIMARY, STANDBY)
    action = bound(table)
    await action.perform(TO_STANDBY)

    await action.perform(TO_PRIMARY)

    assert table.seen() == (PRIMARY, STANDBY)


async def test_undo_of_the_return_sends_traffic_by_the_standby_line_again():
    table = table_of(PRIMARY, STANDBY)
    action = bound(table)
    await action.perform(TO_STANDBY)
    await action.perform(TO_PRIMARY)

    await action.undo(TO_PRIMARY)

    assert table.seen() == (OURS, PRIMARY, STANDBY)


async def test_a_return_that_leads_elsewhere_fails_and_tells_the_routes():
    table = table_of(replace(STANDBY, metric=50), PRIMARY)

    with pytest.raises(
        ActionFailed, match=r"does not go by wan1; routes: default via 198\.51\.100\.1 dev wan2 metric 50"
    ):
        await bound(table).perform(TO_PRIMARY)

    assert not table.changes


@pytest.mark.parametrize(("own", "ours"), [(50, 40), (200, 90)])
async def test_traffic_is_pinned_to_the_standby_also_while_its_own_route_is_the_best(own: int, ours: int):
    """The primary's route went with its carrier, and will be back with it."""
    table = table_of(replace(STANDBY, metric=own))

    await bound(table).perform(TO_STANDBY)

    assert table.seen() == (replace(OURS, metric=ours), replace(STANDBY, metric=own))


async def test_a_route_of_ours_that_points_elsewhere_goes_first():
    stale = Route("default", "192.0.2.1", "wan1", 40, ours=True)
    table = table_of(stale, PRIMARY, STANDBY)

    await bound(table).perform(TO_STANDBY)

    assert table.seen() == (OURS, PRIMARY, STANDBY)


async def test_a_site_without_any_route_gets_one():
    table = table_of()

    await bound(table).perform(TO_STANDBY)

    assert table.seen() == (OURS,)


@pytest.mark.parametrize(("foreign", "ours"), [(100, 90), (10, 1), (2, 1)])
async def test_the_metric_is_ten_below_the_best_and_at_least_one(foreign: int, ours: int):
    table = table_of(replace(PRIMARY, metric=foreign))

    await bound(table).perform(TO_STANDBY)

    assert table.seen()[0] == replace(OURS, metric=ours)


async def test_the_given_metric_and_destination_are_taken():
    table = table_of(PRIMARY, PREFIX)

    await bound(table).perform(request("wan2", "wan1", "203.0.113.0/24", metric=5))

    assert table.seen("203.0.113.0/24")[0] == Route("203.0.113.0/24", "198.51.100.1", "wan2", 5, ours=True)
    assert table.seen() == (PRIMARY,)


@pytest.mark.parametrize(("foreign", "given"), [(0, None), (1, None), (100, 100), (100, 150)])
async def test_a_metric_that_is_not_better_is_refused_before_anything_moves(foreign: int, given: int | None):
    table = table_of(replace(PRIMARY, metric=foreign))

    with pytest.raises(ActionFailed, match="give the site's own routes a higher one"):
        await bound(table).perform(request("wan2", "wan1", metric=given))

    assert not table.changes


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (request("wan9", "wan1"), "no line 'wan9'; known: wan1, wan2, wan3"),
        (request("wan3", "wan1"), "line wan3 names neither gateway nor interface"),
        (request("wan2", "wan1", destination="everywhere"), "neither"),
        (request("wan2", "wan1", metric="low"), "wrong type"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_changes_nothing(broken: Request, words: str):
    table = table_of(PRIMARY, STANDBY)

    with pytest.raises(ActionFailed, match=words):
        await bound(table).perform(broken)

    assert not table.changes


class StubbornTable(MemoryRouteTable):
    """A table whose connections cannot be dropped."""

    async def forget_connections(self, translated_source: str) -> int:
        raise ActionFailed("no answer")


async def test_trouble_with_connections_is_told_and_the_swap_stands():
    table = StubbornTable((PRIMARY, STANDBY), ADDRESSES)

    said = await bound(table).perform(TO_STANDBY)

    assert said.endswith("connections of wan1 were not dropped: no answer")
    assert table.seen()[0] == OURS


def test_proof_and_start_state_are_told_by_path():
    assert KIND.expects(RouteParams(to="standby"), BIND) == {"path.answered": True, "path.line": "wan2"}
    assert KIND.start(RouteParams(to="standby"), BIND) == {"path.line": "wan1"}
    assert KIND.expects(RouteParams(to="primary"), BIND) == {"path.answered": True, "path.line": "wan1"}
    assert KIND.start(RouteParams(to="primary"), BIND) == {"path.line": "wan2"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"destination": "everywhere"}, "destination: "),
        ({"metric": 0}, "metric: must be 1 to"),
        ({"metric": -5}, "metric: "),
    ],
)
def test_words_of_a_step_that_make_no_sense_are_told_with_their_key(words: dict, complaint: str):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        RouteParams(to="standby", **words)


def test_the_table_of_actions_has_it_under_its_name():
    assert ACTIONS["route"] is KIND
    assert all(name == kind.name for name, kind in ACTIONS.items())
