"""The demo's screen and keys: lines that stay, one line below them that is always new, and single key presses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final, TextIO

CLEAR_LINE: Final = "\r\x1b[K"
COLUMNS_MIN: Final = 20
KEYS_MAX: Final = 64  # read at once; what somebody pastes is no flood of commands


class Screen:
    """Writes to *out*. On a terminal the newest status stays as the last line; elsewhere it is written when it changes."""

    def __init__(self, out: TextIO, *, is_live: bool) -> None:
        self.is_closed = False
        self._out = out
        self._is_live = is_live
        self._status = ""

    def say(self, text: str) -> None:
        """Write *text*, which stays."""
        self._write(f"{CLEAR_LINE}{text}\n{self._status}" if self._is_live else f"{text}\n")

    def show(self, status: str) -> None:
        """Show how it stands now."""
        columns = max(COLUMNS_MIN, shutil.get_terminal_size().columns)
        wanted = status[: columns - 1] if self._is_live else status
        if wanted == self._status:
            return
        self._status = wanted
        self._write(f"{CLEAR_LINE}{wanted}" if self._is_live else f"{wanted}\n")

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._is_live and self._status:
            self._status = ""
            self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        if self.is_closed:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:  # whoever read has gone, as `| head` does
            self.is_closed = True
            with contextlib.suppress(OSError):  # or the last flush of the interpreter would complain of it
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())


def is_ours(descriptor: int) -> bool:
    """Tell whether *descriptor* is a terminal that listens to us: in the background its modes must not be touched."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


@contextlib.contextmanager
def pressed(descriptor: int | None, take: Callable[[str], None]) -> Iterator[None]:
    """
    Call *take* with every key pressed on the terminal *descriptor*, until the context ends; None: there is none.

    Its modes are set back in every case, and set anew after the program was stopped and continued.
    """
    if descriptor is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            keys = os.read(descriptor, KEYS_MAX)
        except OSError:
            keys = b""
        if not keys:  # the terminal is gone
            loop.remove_reader(descriptor)
        for key in keys.decode("ascii", "ignore"):
            take(key)

    def set_modes() -> None:
        if is_ours(descriptor):
            tty.setcbreak(descriptor, termios.TCSANOW)

    before = termios.tcgetattr(descriptor)
    try:
        set_modes()
        loop.add_signal_handler(signal.SIGCONT, set_modes)
        loop.add_reader(descriptor, read)
        yield
    finally:
        loop.remove_reader(descriptor)
        loop.remove_signal_handler(signal.SIGCONT)
        with contextlib.suppress(termios.error):  # the terminal is gone, and its modes with it
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def terminal_in() -> int | None:
    """Return the descriptor of the terminal that we may read keys from, None without one."""
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or replaced by something that is no file
        return None
    return descriptor if is_ours(descriptor) else None
