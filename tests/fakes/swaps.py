"""The course of a swap by hand: a branch that is well, a primary that dies, a swap that is proven."""

from __future__ import annotations

from agent.core.run import RunState
from tests.fakes.sites import Driver, bank

FAR = ("edge", "hq", "second_site")


def started(**site: object) -> Driver:
    """A branch as `bank` makes it, that has been well for longer than any line must be."""
    driver = Driver(bank(**site)).start()  # type: ignore[arg-type]
    driver.all_good()
    driver.keep_good(65)
    return driver


def kill_primary(driver: Driver, standby: tuple[str, ...] = ()) -> None:
    """The primary's access is dead, and the standby is seen right after it, with *standby* dead."""
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2", standby)


def swapped(driver: Driver) -> Driver:
    """The primary dies, the swap is done and proven by traffic."""
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    return driver


def refused(driver: Driver, book: str = "standby") -> tuple[str, str]:
    """Return code and text of why *book* does not act."""
    refusal = driver.state.durable.refusals[book]
    return refusal.code, refusal.text


def run_state(driver: Driver, run: str = "R1") -> RunState:
    """Return where *run* stands."""
    return driver.state.durable.runs[run].state
