"""After a crash the executor knows what it began, and a damaged ledger is found before anything is performed."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.clock import SystemClock, boot_s
from agent.core.model import Outcome, Request
from agent.errors import JournalBroken
from agent.runtime.executor import Executor
from agent.runtime.ledger import RowKind, SqliteLedger
from tests.fakes.acting import Lamp, request, verb


def executor_of(lamp: Lamp, ledger: SqliteLedger, *, resendable: bool = True) -> Executor:
    return Executor({"lamp": verb(lamp, resendable=resendable)}, ledger, SystemClock(), lambda key: None)


def asked(key: str = "run-1/1/1", *, resend: bool = False, in_s: float = 3600.0) -> Request:
    return request(key, resend=resend, expires_at=boot_s() + in_s)


async def crashed_after_acceptance(path: Path) -> None:
    """Leave a ledger at *path* that holds an acceptance and no result."""
    ledger = SqliteLedger(path)

    class PowerCut(Lamp):
        async def perform(self, request: Request) -> str:
            self.started.set()
            return await asyncio.Event().wait() and ""

    lamp = PowerCut()
    handling = asyncio.create_task(executor_of(lamp, ledger)._handle(asked()))
    await lamp.started.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    await ledger.close()


async def kinds(ledger: SqliteLedger, key: str = "run-1/1/1") -> list[RowKind]:
    return [row.kind for row in await ledger.rows(key)]


async def test_a_result_outlives_the_process(tmp_path: Path):
    first = executor_of(Lamp(), SqliteLedger(tmp_path / "executor.db"))
    await first.perform(asked())
    await first.close()
    lamp = Lamp()
    second = executor_of(lamp, SqliteLedger(tmp_path / "executor.db"))

    assert await second.outcome("run-1/1/1") == (Outcome.DONE, "lamp is on")
    assert await second.perform(asked(resend=True)) == (Outcome.DONE, "lamp is on")
    assert lamp.moves == []
    await second.close()


async def test_accepted_without_result_is_uncertain_and_not_repeated_blindly(tmp_path: Path):
    await crashed_after_acceptance(tmp_path / "executor.db")
    lamp, ledger = Lamp(), SqliteLedger(tmp_path / "executor.db")
    executor = executor_of(lamp, ledger)

    assert (await executor.outcome("run-1/1/1"))[0] is Outcome.UNCERTAIN
    assert (await executor.perform(asked()))[0] is Outcome.UNCERTAIN

    assert lamp.moves == []
    assert await kinds(ledger) == [RowKind.ACCEPTED]
    await executor.close()


async def test_a_resendable_verb_is_sent_once_more_when_asked_to(tmp_path: Path):
    await crashed_after_acceptance(tmp_path / "executor.db")
    lamp, ledger = Lamp(), SqliteLedger(tmp_path / "executor.db")
    executor = executor_of(lamp, ledger)

    assert (await executor.perform(asked(resend=True)))[0] is Outcome.DONE
    assert (await executor.perform(asked(resend=True)))[0] is Outcome.DONE

    assert lamp.moves == ["on"]
    assert await kinds(ledger) == [RowKind.ACCEPTED, RowKind.ACCEPTED, RowKind.RESULT]
    await executor.close()


async def test_a_verb_that_is_not_resendable_stays_uncertain(tmp_path: Path):
    await crashed_after_acceptance(tmp_path / "executor.db")
    lamp = Lamp()
    executor = executor_of(lamp, SqliteLedger(tmp_path / "executor.db"), resendable=False)

    assert (await executor.perform(asked(resend=True)))[0] is Outcome.UNCERTAIN
    assert lamp.moves == []
    await executor.close()


async def test_a_third_sending_is_never_tried(tmp_path: Path):
    await crashed_after_acceptance(tmp_path / "executor.db")
    ledger = SqliteLedger(tmp_path / "executor.db")
    (row,) = await ledger.rows("run-1/1/1")
    await ledger.append(row)  # the second sending crashed as well
    lamp = Lamp()
    executor = executor_of(lamp, ledger)

    assert (await executor.perform(asked(resend=True)))[0] is Outcome.UNCERTAIN
    assert lamp.moves == []
    await executor.close()


async def test_refusing_a_resend_does_not_make_the_first_sending_certain(tmp_path: Path):
    await crashed_after_acceptance(tmp_path / "executor.db")
    executor = executor_of(Lamp(), SqliteLedger(tmp_path / "executor.db"))

    outcome, reason = await executor.perform(asked(resend=True, in_s=-5.0))

    assert outcome is Outcome.UNCERTAIN
    assert "not sent again: the request expired" in reason
    assert (await executor.outcome("run-1/1/1"))[0] is Outcome.UNCERTAIN
    await executor.close()


async def filled(path: Path) -> None:
    """Write a ledger of three commands to *path*."""
    executor = executor_of(Lamp(), SqliteLedger(path))
    for step in range(3):
        await executor.perform(asked(f"run-1/{step}/1"))
    await executor.close()


def altered(path: Path, *statements: str) -> None:
    """Run *statements* on the ledger at *path*, as somebody with an editor would."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE command SET body = replace(body, 'done', 'dono') WHERE seq = 4", 4),
        ("UPDATE command SET body = replace(body, 'lamp is on', 'lamp is no') WHERE seq = 2", 2),
        ("UPDATE command SET digest = replace(digest, substr(digest, 1, 1), 'x') WHERE seq = 3", 3),
        ("UPDATE command SET key = 'run-9/1/1' WHERE seq = 1", 1),
        ("DELETE FROM command WHERE seq = 1", 1),
        ("DELETE FROM command WHERE seq = 5", 5),
    ],
)
async def test_an_altered_or_missing_row_is_found_at_the_next_start(tmp_path: Path, statement: str, seq: int):
    await filled(tmp_path / "executor.db")
    altered(tmp_path / "executor.db", statement)

    with pytest.raises(JournalBroken) as caught:
        SqliteLedger(tmp_path / "executor.db")

    assert caught.value.seq == seq


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database at all " * 100),
        lambda path: altered(path, "PRAGMA user_version = 9"),
    ],
)
async def test_a_file_that_is_no_ledger_of_ours_is_told(tmp_path: Path, spoil: Callable[[Path], object]):
    await filled(tmp_path / "executor.db")
    spoil(tmp_path / "executor.db")

    with pytest.raises(JournalBroken):
        SqliteLedger(tmp_path / "executor.db")


async def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path):
    with pytest.raises(OSError, match="No such file"):
        SqliteLedger(tmp_path / "nowhere" / "executor.db")


async def test_the_file_is_for_its_owner_alone(tmp_path: Path):
    await filled(tmp_path / "executor.db")

    assert stat.S_IMODE((tmp_path / "executor.db").stat().st_mode) == 0o600
