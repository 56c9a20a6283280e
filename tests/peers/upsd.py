"""A real NUT server (`upsd`) with a real driver (`dummy-ups`) on a free port of the loopback."""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PROGRAMS: Final = Path("/lib/nut")
UPSD: Final = PROGRAMS / "upsd"
DRIVER: Final = PROGRAMS / "dummy-ups"
END_S: Final = 5.0
START_S: Final = 10.0

VARIABLES: Final = {
    "ups.status": "OL",
    "ups.load": "23",
    "battery.charge": "100",
    "battery.runtime": "1800",
    "input.voltage": "229.6",
}


class RealUpsd:
    """
    `upsd` and `dummy-ups` in *folder*, for one device named `ups`.

    Raises:
        RuntimeError: NUT is not installed; a test that needs the real peer fails rather than pass unseen.
    """

    def __init__(self, folder: Path, ups: str = "su700", max_age_s: int = 15) -> None:
        for program in (UPSD, DRIVER):
            if not program.exists():
                raise RuntimeError(f"{program} is missing; install the package nut-server")
        self.ups = ups
        self.address = ("127.0.0.1", _free_port())
        self.variables = dict(VARIABLES)
        self._folder = folder
        self._changes = 0
        self._upsd: asyncio.subprocess.Process | None = None
        self._driver: asyncio.subprocess.Process | None = None
        self._write_config(max_age_s)
        self._write_variables()

    async def __aenter__(self) -> RealUpsd:
        try:
            await self.start_driver()
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()
        await self.kill_driver()

    async def start(self) -> None:
        """Start the server and return as soon as it takes connections."""
        self._upsd = await self._run(UPSD, "-F", "-u", getpass.getuser())
        await _until_accepting(self.address)

    async def stop(self) -> None:
        """Kill the server: its connections end, new ones are refused."""
        await _end(self._upsd)
        self._upsd = None

    async def start_driver(self) -> None:
        """Start the driver and return as soon as its socket is there; the server finds it within some seconds."""
        door = self._folder / f"dummy-ups-{self.ups}"
        door.unlink(missing_ok=True)
        self._driver = await self._run(DRIVER, "-a", self.ups, "-u", getpass.getuser(), "-D")
        async with asyncio.timeout(START_S):
            while not door.exists():  # noqa: ASYNC110 (another process makes it)
                await asyncio.sleep(0.01)

    async def kill_driver(self) -> None:
        """Kill the driver: the server notices at once."""
        await _end(self._driver)
        self._driver = None

    async def freeze(self) -> None:
        """Stop the server's process: the kernel goes on taking connections, nobody answers."""
        _signal(self._upsd, signal.SIGSTOP)

    async def thaw(self) -> None:
        """Let the server's process go on: it answers what was asked meanwhile."""
        _signal(self._upsd, signal.SIGCONT)

    async def freeze_driver(self) -> None:
        """Stop the driver's process: after `max_age_s` the server calls its data stale."""
        _signal(self._driver, signal.SIGSTOP)

    async def thaw_driver(self) -> None:
        """Let the driver's process go on."""
        _signal(self._driver, signal.SIGCONT)

    async def set_variables(self, variables: Mapping[str, str]) -> None:
        """Change values of the device; the driver takes them up within some two seconds."""
        self.variables.update(variables)
        self._write_variables()

    def _write_config(self, max_age_s: int) -> None:
        host, port = self.address
        device = f"[{self.ups}]\ndriver = dummy-ups\nmode = dummy-once\nport = {self.ups}.dev\n"
        files = {
            "ups.conf": f"pollinterval = 1\n{device}",
            "upsd.conf": f"LISTEN {host} {port}\nMAXAGE {max_age_s}\n",
            "upsd.users": "",
        }
        for name, text in files.items():
            path = self._folder / name
            path.write_text(text, encoding="ascii")
            path.chmod(0o600)

    def _write_variables(self) -> None:
        written = self._folder / "written.dev"
        lines = (f"{name}: {_escaped(value)}\n" for name, value in self.variables.items())
        written.write_text("".join(lines), encoding="utf-8")
        # The driver compares whole seconds, so that two changes within one second need time stamps further apart.
        self._changes += 1
        modified_s = int(written.stat().st_mtime) + self._changes
        os.utime(written, (modified_s, modified_s))
        written.replace(self._folder / f"{self.ups}.dev")

    async def _run(self, program: Path, *arguments: str) -> asyncio.subprocess.Process:
        names = ("NUT_CONFPATH", "NUT_STATEPATH", "NUT_ALTPIDPATH", "NUT_PIDPATH")
        with (self._folder / f"{program.name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                program,
                *arguments,
                env=os.environ | dict.fromkeys(names, str(self._folder)),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _escaped(value: str) -> str:
    return re.sub(r'(["\\#])', r"\\\1", value)


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None:
        return
    with suppress(ProcessLookupError):
        process.kill()  # reaches a stopped process too
    async with asyncio.timeout(END_S):
        await process.wait()


def _signal(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    if process is None:
        raise RuntimeError("the process is not running")
    process.send_signal(number)


async def _until_accepting(address: tuple[str, int]) -> None:
    async with asyncio.timeout(START_S):
        while True:
            with suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(*address)
                writer.close()
                return
            await asyncio.sleep(0.01)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
