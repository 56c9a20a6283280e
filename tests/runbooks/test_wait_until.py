"""Verb `wait_until` commands nothing and hands its points to the proof."""

from __future__ import annotations

from agent.core.model import Request
from agent.ports import ActionContext
from drills.simsite.routes import MemoryRouteTable
from runbooks import ACTIONS
from runbooks.actions.wait_until import WaitUntilParams

KIND = ACTIONS["wait_until"]
REQUEST = Request("run-1/1/1", "wait_until", (), False, "run-1", 1, 1, False, (), 1000.0)


async def test_it_touches_nothing_and_says_so():
    table = MemoryRouteTable()
    action = KIND.make(ActionContext({}, table))

    assert "nothing was to be done" in await action.perform(REQUEST)
    assert "nothing was to be done" in await action.undo(REQUEST)
    assert not table.changes


def test_what_it_waits_for_is_what_the_step_proves():
    params = WaitUntilParams({"mains.present": True, "ups.charge_ratio": 0.9})

    assert KIND.expects(params, {}) == {"mains.present": True, "ups.charge_ratio": 0.9}
    assert KIND.start(params, {}) == {}


def test_its_channel_is_none_so_that_any_point_may_prove_it():
    assert (KIND.channel, KIND.resendable) == ("none", True)
