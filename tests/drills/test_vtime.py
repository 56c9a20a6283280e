"""Virtual time jumps, agrees with itself, refuses threads, and ends a wait for nothing with an error."""

from __future__ import annotations

import asyncio
import logging

import pytest

from drills.vtime import VirtualClock, VirtualTimeLoop, run_virtual


def test_a_day_passes_at_once():
    async def main() -> float:
        for _ in range(24 * 60):
            await asyncio.sleep(60)
        return asyncio.get_running_loop().time()

    assert run_virtual(main(), start_s=1000.0) == pytest.approx(1000.0 + 86400)


def test_sleeps_and_time_outs_agree():
    async def main() -> list[str]:
        order: list[str] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            order.append(name)

        tasks = [asyncio.create_task(sleeper(name, at)) for name, at in (("b", 2.0), ("a", 1.0), ("c", 3.5))]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.gather(*tasks)
        return order

    assert run_virtual(main()) == ["a", "b"]


def test_a_wait_for_something_that_nobody_does_is_an_error():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nobody will do"):
        run_virtual(main())


def test_threads_are_refused_by_name():
    def work() -> None:
        raise AssertionError("it ran")

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"no threads: .*work"):
            await asyncio.to_thread(work)
        with pytest.raises(RuntimeError, match=r"no threads: .*work"):
            asyncio.get_running_loop().run_in_executor(None, work)
        with pytest.raises(RuntimeError, match="no threads"):
            asyncio.get_running_loop().call_soon_threadsafe(work)

    run_virtual(main())


def test_left_over_tasks_are_cancelled_and_their_errors_told(caplog: pytest.LogCaptureFixture):
    ended: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("left")
            raise ValueError("while ending")

    async def main() -> None:
        main.task = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    run_virtual(main())

    assert ended == ["left"]
    assert any("error while ending" in record.getMessage() for record in caplog.records)


def test_a_task_that_will_not_end_does_not_hang_the_run(caplog: pytest.LogCaptureFixture):
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        main.task = asyncio.create_task(stubborn(), name="stubborn one")  # type: ignore[attr-defined]
        main.task._log_destroy_pending = False  # type: ignore[attr-defined] # it is told of below, once is enough
        await asyncio.sleep(1)

    caplog.set_level(logging.WARNING)
    run_virtual(main())

    assert "vtime.task_left task=stubborn one" in [record.getMessage() for record in caplog.records]


def test_the_clock_runs_with_the_loop_and_utc_beside_it():
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop(), "boot-1", utc_start=1_700_000_000.0)
        await asyncio.sleep(90)

        now = clock.now()
        assert (now.boot_id, now.boot_s, now.utc_s) == ("boot-1", 190.0, 1_700_000_090.0)

        clock.utc_step_s = -3600.0
        assert clock.now().boot_s == 190.0
        assert clock.now().utc_s == 1_700_000_090.0 - 3600.0

    run_virtual(main(), start_s=100.0)


def test_two_runs_are_the_same():
    async def main() -> list[float]:
        loop, seen = asyncio.get_running_loop(), []

        async def tick(period_s: float) -> None:
            for _ in range(100):
                await asyncio.sleep(period_s)
                seen.append(loop.time())

        await asyncio.gather(tick(0.1), tick(0.07), tick(0.3))
        return seen

    assert run_virtual(main()) == run_virtual(main())


def test_the_loop_can_be_used_with_asyncios_own_runner():
    async def main() -> float:
        await asyncio.sleep(5)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == 5.0
