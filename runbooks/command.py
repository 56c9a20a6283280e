"""Runs a program by argument vector: no shell, a fixed path, a clean environment, a cap on output and on time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import ActionFailed

# PATH is not asked: whoever sets it would choose the program.
PROGRAM_DIRECTORIES: Final = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
ENVIRONMENT: Final = {"LC_ALL": "C", "PATH": ""}
WALL_TIME_S: Final = 3.0
OUTPUT_BYTES_MAX: Final = 64 * 1024
CHUNK_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program left: its exit code and the first 64 KiB of each stream. `is_cut` tells that there was more."""

    code: int
    output: str
    complaint: str
    is_cut: bool = False


Runner = Callable[[Sequence[str]], Awaitable[Answer]]


def find_program(name: str) -> str | None:
    """Return the full path of program *name* from the system's own directories, None when it is not installed."""
    if name.startswith("/"):
        return name if os.access(name, os.X_OK) else None
    places = (Path(directory, name) for directory in PROGRAM_DIRECTORIES)
    return next((str(place) for place in places if place.is_file() and os.access(place, os.X_OK)), None)


async def run_program(arguments: Sequence[str], *, wall_time_s: float = WALL_TIME_S) -> Answer:
    """
    Run *arguments* and return what the program left. The first word is its full path; a bare name is not installed.

    The program gets its own session, so that on time-out or cancellation its whole process group is killed.

    Raises:
        ActionFailed: it could not be started, or did not end within *wall_time_s*.
    """
    if not arguments[0].startswith("/"):
        raise ActionFailed(f"program {arguments[0]} is not installed")
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise ActionFailed(f"{arguments[0]} could not be started: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(wall_time_s):
            (output, is_cut), (complaint, _) = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError as error:
        raise ActionFailed(f"{' '.join(arguments)}: no end within {wall_time_s:g} s, killed") from error
    finally:
        await _end(process)
    return Answer(code, output, complaint.strip(), is_cut)


async def _read(stream: asyncio.StreamReader | None) -> tuple[str, bool]:
    """Return the first 64 KiB of *stream* and whether there was more, which is read too, or the writer would block."""
    if stream is None:
        return "", False
    kept = bytearray()
    is_cut = False
    while chunk := await stream.read(CHUNK_BYTES):
        room = OUTPUT_BYTES_MAX - len(kept)
        kept += chunk[:room]
        is_cut = is_cut or len(chunk) > room
    return kept.decode("utf-8", errors="replace"), is_cut


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the group of a *process* that has not ended, and reap it."""
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended between the question and the signal; the loop's child watcher reaps it
    await process.wait()
