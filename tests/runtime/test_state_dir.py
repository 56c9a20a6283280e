"""The state directory has one owner, and a reserve of disk space."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import StateDirectoryInUse
from agent.runtime.state_dir import Reserve, StateDirectory
from tests.fakes.journals import SMALL, body, write


def test_two_agents_cannot_own_one_directory(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as first:
        with pytest.raises(StateDirectoryInUse, match=f"pid {os.getpid()} boot "):
            StateDirectory(first.path)
        assert first.path.stat().st_mode & 0o777 == 0o700

    StateDirectory(tmp_path / "state").release()


def test_a_lock_that_a_killed_process_left_behind_is_none(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom agent.runtime.state_dir import StateDirectory\n"
        "held = StateDirectory(Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StateDirectoryInUse, match=f"pid {process.pid} "):
            StateDirectory(tmp_path)
        process.kill()

    StateDirectory(tmp_path).release()


def test_the_reserve_is_held_and_given_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 100_000)

    assert reserve.hold()
    assert reserve.path.stat().st_blocks * 512 >= 100_000
    assert reserve.hold()
    assert reserve.release()
    assert not reserve.release()


def test_the_writer_holds_the_reserve_once_it_works(tmp_path: Path) -> None:
    store = write(tmp_path, [body(1)])

    assert store.maintain() == ""

    assert (tmp_path / "reserve").stat().st_size == SMALL.reserve_bytes
    store.close()
