"""What a restart makes of a run whose command never left, and of numbers that were read back from text."""

from __future__ import annotations

from dataclasses import replace

from agent.core.engine import replay
from agent.core.model import AskOutcome, CommandEnded, Outcome, Quality
from agent.core.records import Blocked, RunEnded, StepSent
from agent.core.run import RunState
from agent.core.state import Durable, State, in_order
from tests.fakes.sites import Driver, bank

FAR = ("edge", "hq", "second_site")


def started() -> Driver:
    """Return a driver of a site on which all has been well for a while."""
    driver = Driver(bank()).start()
    driver.all_good()
    driver.keep_good(5)
    return driver


def kill_primary(driver: Driver) -> None:
    """See the primary dead, and the standby alive after that: the command leaves."""
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2")


def restarted(driver: Driver, outcome: Outcome, *, boot: str = "boot-1") -> Driver:
    """Return a driver that starts on the records of *driver*, and whose executor answers with *outcome*."""
    after = Driver(driver.site, replay(driver.records, State()), now_s=driver.now_s + 5, boot=boot).start()
    for ask in [effect for effect in after.effects if isinstance(effect, AskOutcome)]:
        after.send(CommandEnded(ask.key, outcome))
    return after


def test_a_command_that_never_left_and_is_no_longer_permitted_ends_its_run_untouched() -> None:
    driver = started()
    kill_primary(driver)
    after = restarted(driver, Outcome.NEVER)

    for _ in range(12):
        after.now_s += 1
        after.rungs("wan1", FAR)
        after.rungs("wan2", FAR)  # the standby is dead now
        after.path(None)

    (ended,) = after.bodies(RunEnded)
    assert ended.end is RunState.UNDONE
    assert after.commands() == []
    assert after.bodies(Blocked)
    assert after.state.durable.lockouts == {}
    assert after.state.durable.spent["standby"] == {}


def test_a_command_refused_at_the_executors_door_is_sent_again_when_the_guards_allow_it() -> None:
    driver = started()
    kill_primary(driver)
    after = restarted(driver, Outcome.REFUSED)

    after.now_s += 1
    after.rungs("wan1", FAR)
    after.rungs("wan2")

    (again,) = after.commands()
    assert again.resend


def test_a_command_that_the_executor_had_accepted_counts_as_sent_although_we_died_before_we_noted_it() -> None:
    driver = started()
    kill_primary(driver)
    after = restarted(driver, Outcome.DONE)

    assert [body.key for body in after.bodies(StepSent)] == ["R1.0.1"]
    assert after.state.durable.runs["R1"].sends == {"0": 1}


def test_after_a_reboot_an_unproven_command_is_given_anew_once_and_then_no_more() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    after = restarted(driver, Outcome.DONE, boot="boot-2")

    for _ in range(60):
        after.now_s += 1
        after.rungs("wan1", FAR)
        after.rungs("wan2")
        after.path(None)
        for request in after.commands():
            if request.key == after.state.durable.runs["R1"].key and after.state.durable.runs["R1"].returned_s is None:
                after.answer()

    assert [request.undo for request in after.commands()] == [False, True]
    assert after.state.durable.runs["R1"].state in (RunState.UNDONE, RunState.HELD)


def test_numbers_read_back_from_text_stand_in_their_own_order() -> None:
    driver = started()
    for _ in range(12):
        driver.now_s += 1
        driver.rungs("wan1", FAR)
        driver.keep_good(200)
    durable = driver.state.durable
    assert len(durable.incidents) == 12
    shuffled = replace(durable, incidents=dict(sorted(durable.incidents.items())))
    assert list(shuffled.incidents) != list(durable.incidents)

    assert list(in_order(shuffled).incidents) == list(durable.incidents)
    assert in_order(Durable()) == Durable()


def test_reading_unknown_points_after_a_restart_gives_up_no_arrangement() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    after = restarted(driver, Outcome.DONE)

    for _ in range(30):
        after.now_s += 1
        after.rungs("wan1", FAR)
        after.rungs("wan2")
        after.see({"path.answered": None, "path.line": None}, quality=Quality.UNKNOWN)

    assert "on_standby_line" in after.state.durable.arrangements
