"""
The state directory: one agent owns it, by a lock that falls away with its process, and a reserve of disk space in it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final

from agent.clock import BOOT_ID
from agent.errors import StateDirectoryInUse

RESERVE_BYTES: Final = 8 * 1024 * 1024  # what a started run may still need when the disk is full


class StateDirectory:
    """
    The directory at *path*, made with mode 0700 when it is not there, and locked until `release` or the process ends.

    The kernel holds the lock, so one that a crash left behind is none. The file tells people who has it.

    Raises:
        StateDirectoryInUse: another process owns it.
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() or "an unknown process"
            self.release()
            raise StateDirectoryInUse(f"{path} belongs to another agent ({holder})") from error
        self._sign(self._descriptor)

    def _sign(self, descriptor: int) -> None:
        boot_id = BOOT_ID.read_text(encoding="ascii").strip()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} boot {boot_id}\n".encode(), 0)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a full disk must not keep the agent from starting; the lock itself holds
                self.release()
                raise

    def release(self) -> None:
        """Let go of the lock. Doing so again changes nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> StateDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class Reserve:
    """Disk space kept in a file, to be given back when the disk is full."""

    def __init__(self, directory: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self.path = directory / "reserve"
        self.size_bytes = size_bytes

    def is_held(self) -> bool:
        """Say whether the whole reserve is there."""
        try:
            return self.path.stat().st_size >= self.size_bytes
        except FileNotFoundError:
            return False

    def hold(self) -> bool:
        """Take the reserve where as much again stays free; say whether it is held. Raises OSError unless full."""
        if self.is_held():
            return True
        space = os.statvfs(self.path.parent)
        if space.f_bavail * space.f_frsize < 2 * self.size_bytes:
            return False
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, max(self.size_bytes, 1))
        except OSError as error:
            self.path.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        finally:
            os.close(descriptor)
        return True

    def release(self) -> bool:
        """Give the space back; say whether there was any."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True


def fsync_directory(path: Path) -> None:
    """Make renames and new names in *path* durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
