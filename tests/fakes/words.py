"""What every test of people's words asks: that a refused one changes nothing, and that what was decided is remembered."""

from __future__ import annotations

import json

from agent.core.engine import replay
from agent.core.model import Asked
from agent.core.state import Durable, State
from agent.runtime.codec import canonical, from_plain
from tests.fakes.sites import Driver


def changes_nothing(driver: Driver, event: Asked) -> None:
    """Say *event*, which is not possible as things stand."""
    before = driver.state.durable
    assert driver.send(event).records == ()
    assert driver.state.durable == before


def remembered(driver: Driver) -> None:
    """What was decided comes back from records and from a checkpoint alike."""
    assert replay(driver.records, State()).durable == driver.state.durable
    assert from_plain(Durable, json.loads(canonical(driver.state.durable))) == driver.state.durable
