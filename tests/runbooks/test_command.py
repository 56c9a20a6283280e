"""A program that is run for an action cannot hang the agent, flood it, or see its environment."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from agent.errors import ActionFailed
from runbooks.command import OUTPUT_BYTES_MAX, find_program, run_program
from runbooks.routes import IpRouteTable


def python(code: str) -> tuple[str, ...]:
    """Return the words that run *code*."""
    return (sys.executable, "-I", "-c", code)


async def test_code_and_both_streams_come_back():
    answer = await run_program(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))

    assert (answer.code, answer.output, answer.complaint, answer.is_cut) == (3, "out\n", "err", False)


async def test_output_is_cut_and_the_program_ends_all_the_same():
    answer = await run_program(python(f"print('x' * {3 * OUTPUT_BYTES_MAX})"))

    assert (answer.code, len(answer.output), answer.is_cut) == (0, OUTPUT_BYTES_MAX, True)


async def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")

    answer = await run_program(("/usr/bin/env",))

    assert answer.output.split() == ["LC_ALL=C", "PATH="]


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path):
    pid_file = tmp_path / "child"
    script = f"/bin/sleep 600 & echo $! > {pid_file}; wait"

    with pytest.raises(ActionFailed, match="no end within 1 s"):
        await run_program(("/bin/sh", "-c", script), wall_time_s=1.0)

    await _until_gone(int(pid_file.read_text()))


async def test_cancelling_the_caller_kills_the_program():
    task = asyncio.create_task(run_program(("/bin/sleep", "600.125")))
    async with asyncio.timeout(5):
        while not _running("600.125"):  # noqa: ASYNC110 - a process gives no event
            await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not _running("600.125")


async def test_a_program_that_is_not_installed_is_told():
    with pytest.raises(ActionFailed, match="no-such-program is not installed"):
        await IpRouteTable(program="no-such-program").routes("default")


def test_a_program_is_found_in_the_systems_own_directories_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evil = tmp_path / "evil-ip"
    evil.write_text("#!/bin/sh\n")
    evil.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_program("evil-ip") is None
    assert find_program("env") in ("/usr/bin/env", "/bin/env")


async def _until_gone(pid: int) -> None:
    """Wait until process *pid* has ended (a zombie has)."""
    async with asyncio.timeout(5):
        while _state(pid) not in ("", "Z"):  # noqa: ASYNC110 - a process gives no event
            await asyncio.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _running(word: str) -> bool:
    """Tell whether a process with *word* among its arguments runs."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in entry.read_bytes().decode(errors="replace").split("\0"):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False
