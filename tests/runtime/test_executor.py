"""The executor performs one command at a time, each key once, and says of every refusal why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.core.model import Outcome
from agent.runtime.executor import DETAIL_CHARS_MAX, Executor
from agent.runtime.ledger import Ledger, MemoryLedger, RowKind
from drills.vtime import VirtualClock, run_virtual
from tests.fakes.acting import Broken, FullDisk, Lamp, Stubborn, Waiting, request, verb


def executor_of(lamp: Lamp, ledger: Ledger | None = None, accepted: list[str] | None = None) -> Executor:
    """Return an executor that can switch *lamp*."""
    on_accepted = ([] if accepted is None else accepted).append
    clock = VirtualClock(asyncio.get_running_loop())
    return Executor({"lamp": verb(lamp)}, ledger or MemoryLedger(), clock, on_accepted)


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Make a plain test of a coroutine function, run in virtual time."""

    def run() -> None:
        async def main() -> None:
            await test()

        run_virtual(main())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@in_virtual_time
async def test_a_command_is_accepted_performed_recorded_and_answered():
    lamp, accepted = Lamp(), []
    executor = executor_of(lamp, accepted=accepted)

    assert await executor.perform(request()) == (Outcome.DONE, "lamp is on")

    assert (lamp.moves, accepted) == (["on"], ["run-1/1/1"])
    assert await executor.outcome("run-1/1/1") == (Outcome.DONE, "lamp is on")


@in_virtual_time
async def test_the_acceptance_is_on_record_before_anything_moves():
    lamp, ledger = Waiting(), MemoryLedger()
    task = asyncio.create_task(executor_of(lamp, ledger).perform(request()))

    await lamp.started.wait()

    assert [row.kind for row in await ledger.rows("run-1/1/1")] == [RowKind.ACCEPTED]
    assert lamp.moves == []
    lamp.may_end.set()
    await task
    assert [row.kind for row in await ledger.rows("run-1/1/1")] == [RowKind.ACCEPTED, RowKind.RESULT]


@in_virtual_time
async def test_undo_undoes():
    lamp = Lamp()

    assert await executor_of(lamp).perform(request(undo=True)) == (Outcome.DONE, "lamp is off")


@in_virtual_time
async def test_a_repeated_key_is_answered_from_the_record():
    lamp, accepted = Lamp(), []
    executor = executor_of(lamp, accepted=accepted)
    await executor.perform(request())

    for again in (request(), request(resend=True), request(expires_at=-1.0)):
        assert await executor.perform(again) == (Outcome.DONE, "lamp is on")

    assert (lamp.moves, accepted) == (["on"], ["run-1/1/1"])


@in_virtual_time
async def test_a_failure_is_answered_from_the_record_too():
    lamp = Lamp(works=False)
    executor = executor_of(lamp)
    failed = (Outcome.FAILED, "lamp went on, its contact says otherwise")

    assert await executor.perform(request()) == failed
    assert await executor.perform(request(resend=True)) == failed
    assert await executor.outcome("run-1/1/1") == failed
    assert lamp.moves == ["on"]


@in_virtual_time
async def test_a_key_of_which_nothing_is_known_never_was():
    assert (await executor_of(Lamp()).outcome("run-9/1/1"))[0] is Outcome.NEVER


@in_virtual_time
async def test_a_key_cannot_be_used_for_another_command():
    lamp = Lamp()
    executor = executor_of(lamp)
    await executor.perform(request())

    outcome, reason = await executor.perform(request(undo=True))

    assert outcome is Outcome.REFUSED
    assert "belongs to another command" in reason
    assert lamp.moves == ["on"]


@in_virtual_time
async def test_an_expired_request_is_refused_before_anything_moves():
    lamp, accepted = Lamp(), []
    executor = executor_of(lamp, accepted=accepted)
    await asyncio.sleep(61)

    refused = await executor.perform(request(expires_at=60.0))

    assert refused == (Outcome.REFUSED, "the request expired 1.0 s ago")
    assert (lamp.moves, accepted) == ([], [])
    assert await executor.outcome("run-1/1/1") == refused


@in_virtual_time
async def test_a_request_that_expires_while_it_waits_its_turn_is_refused():
    first, executor = Waiting(), None
    executor = executor_of(first)
    holding = asyncio.create_task(executor.perform(request("run-1/1/1")))
    await first.started.wait()
    waiting = asyncio.create_task(executor.perform(request("run-1/2/1", expires_at=3.0)))
    await asyncio.sleep(5)
    first.may_end.set()

    assert (await holding)[0] is Outcome.DONE
    assert (await waiting)[0] is Outcome.REFUSED
    assert first.moves == ["on"]


class SlowDisk(MemoryLedger):
    """A ledger whose every row takes ten seconds."""

    async def append(self, row):
        await asyncio.sleep(10)
        await super().append(row)


@in_virtual_time
async def test_a_request_that_expires_while_its_acceptance_is_written_is_refused():
    lamp, accepted = Lamp(), []
    executor = executor_of(lamp, SlowDisk(), accepted)

    assert (await executor.perform(request(expires_at=5.0)))[0] is Outcome.REFUSED
    assert (await executor.outcome("run-1/1/1"))[0] is Outcome.REFUSED
    assert (lamp.moves, accepted) == ([], [])


@in_virtual_time
async def test_a_refused_key_may_be_sent_again_since_nothing_was_touched():
    lamp = Lamp()
    executor = executor_of(lamp)
    await executor.perform(request(expires_at=-1.0))

    assert (await executor.perform(request()))[0] is Outcome.REFUSED
    assert (await executor.perform(request(resend=True)))[0] is Outcome.DONE


@in_virtual_time
async def test_an_unknown_verb_is_refused_and_the_known_ones_are_told():
    refused = await executor_of(Lamp()).perform(request(name="lanp"))

    assert refused == (Outcome.REFUSED, "unknown verb 'lanp'; known: lamp")


@in_virtual_time
async def test_only_one_command_is_performed_at_a_time():
    lamp = Lamp(takes_s=1.0)
    executor = executor_of(lamp)

    await asyncio.gather(*(executor.perform(request(f"run-1/{step}/1")) for step in range(5)))

    assert (len(lamp.moves), lamp.busiest) == (5, 1)


@in_virtual_time
async def test_the_same_key_asked_twice_at_once_is_performed_once():
    lamp = Lamp(takes_s=1.0)
    executor = executor_of(lamp)

    answers = await asyncio.gather(
        executor.perform(request()), executor.perform(request()), executor.outcome("run-1/1/1")
    )

    assert answers == [(Outcome.DONE, "lamp is on")] * 3
    assert lamp.moves == ["on"]


@in_virtual_time
async def test_a_caller_that_goes_away_does_not_cancel_what_runs():
    lamp = Waiting()
    executor = executor_of(lamp)
    caller = asyncio.create_task(executor.perform(request()))
    await lamp.started.wait()

    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    lamp.may_end.set()

    assert await executor.outcome("run-1/1/1") == (Outcome.DONE, "lamp is on")
    assert lamp.moves == ["on"]


@in_virtual_time
async def test_a_command_that_does_not_end_is_cancelled_and_failed():
    lamp = Lamp(takes_s=3600.0)
    executor = executor_of(lamp)

    assert await executor.perform(request()) == (Outcome.FAILED, "no end within 10 s")
    assert lamp.busy == 0


@in_virtual_time
async def test_nothing_else_is_performed_while_a_cancelled_command_may_still_act():
    lamp = Stubborn()
    executor = executor_of(lamp)

    assert (await executor.perform(request("run-1/1/1")))[0] is Outcome.FAILED
    assert await executor.perform(request("run-1/2/1")) == (Outcome.REFUSED, "an earlier command has not ended")

    lamp.may_end.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await executor.perform(request("run-1/3/1")))[0] is Outcome.DONE


@in_virtual_time
async def test_an_action_with_a_mistake_fails_with_its_reason_on_one_line():
    assert await executor_of(Broken()).perform(request()) == (Outcome.FAILED, "ZeroDivisionError: division by zero")


@in_virtual_time
async def test_a_long_detail_is_cut():
    lamp = Lamp()

    async def perform(_: object) -> str:
        return "x" * 10_000

    lamp.perform = perform  # type: ignore[method-assign, assignment]

    assert len((await executor_of(lamp).perform(request()))[1]) == DETAIL_CHARS_MAX


@in_virtual_time
async def test_nothing_moves_when_the_acceptance_cannot_be_recorded():
    lamp, accepted = Lamp(), []

    outcome, reason = await executor_of(lamp, FullDisk(RowKind.ACCEPTED), accepted).perform(request())

    assert outcome is Outcome.REFUSED
    assert "no space left on device" in reason
    assert (lamp.moves, accepted) == ([], [])


@in_virtual_time
async def test_a_result_that_cannot_be_recorded_is_told_and_leaves_the_key_uncertain():
    executor = executor_of(Lamp(), FullDisk(RowKind.RESULT))

    outcome, detail = await executor.perform(request())

    assert outcome is Outcome.DONE
    assert "could not be recorded" in detail
    assert (await executor.outcome("run-1/1/1"))[0] is Outcome.UNCERTAIN


@in_virtual_time
async def test_closing_waits_for_what_is_under_way():
    lamp = Lamp(takes_s=5.0)
    executor = executor_of(lamp)
    caller = asyncio.create_task(executor.perform(request()))
    await lamp.started.wait()

    await executor.close()

    assert lamp.moves == ["on"]
    assert (await caller)[0] is Outcome.DONE
