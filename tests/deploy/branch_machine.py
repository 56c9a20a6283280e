"""A branch's machine below a directory, with archives to install on it: no network, and a stand-in for systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.clock import boot_s
from tools.pack import copy_source, make_program_wheel, pack, seal

FAKE_SYSTEMCTL: Final = Path(__file__).resolve().parents[1] / "fakes" / "systemctl.py"
TIMEOUT_S: Final = 120.0
PATIENCE_S: Final = 15.0
WATCH_S: Final = 1  # how long a new release is watched; at a branch half a minute
# Nothing is reachable in there, not even by name; only loopback, on which the agent serves its metrics.
NO_NETWORK: Final = ("unshare", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "-")


@dataclass(frozen=True)
class Archives:
    """An unpacked archive of this tree, and others made of it under another version."""

    folder: Path
    now: Path

    @classmethod
    def make(cls, folder: Path) -> Archives:
        """Pack this tree once, and unpack it."""
        with tarfile.open(pack(folder / "dist")) as tar:
            tar.extractall(folder, filter="data")
        (now,) = folder.glob("changeover-*")
        return cls(folder, now)

    @property
    def version(self) -> str:
        return version_in(self.now)

    def wheel(self, name: str) -> Path:
        """Return the wheel of *name* in the archive."""
        (found,) = (self.now / "wheels").glob(f"{name}-*.whl")
        return found

    def other(self, version: str, damage: dict[str, str] | None = None) -> Path:
        """Return the archive of *version*: the same, but for what *damage* adds to the end of modules."""
        folder = self.folder / f"changeover-{version}"
        shutil.copytree(self.now, folder)
        source = self.folder / f"source-{version}"
        source.mkdir()
        copy_source(source)
        named = source / "agent" / "__init__.py"
        named.write_text(named.read_text(encoding="utf-8").replace(self.version, version), encoding="utf-8")
        for module, text in (damage or {}).items():
            with (source / module).open("a", encoding="utf-8") as file:
                file.write(text)
        for wheel in (folder / "wheels").glob("changeover-*.whl"):
            wheel.unlink()
        assert make_program_wheel(source, folder / "wheels") == version
        (folder / "VERSION").write_text(f"{version}\n", encoding="utf-8")
        seal(folder)
        return folder


def version_in(archive: Path) -> str:
    """Return the version that an unpacked archive is of."""
    return (archive / "VERSION").read_text(encoding="utf-8").strip()


class Machine:
    """The machine whose root is *root*. Its path is short, for a socket's name is."""

    def __init__(self, root: Path, *, has_manager: bool) -> None:
        self.root = root
        self.site = root / "etc" / "changeover" / "site.yaml"
        self.state = root / "var" / "lib" / "changeover"
        programs = root / "programs"
        programs.mkdir()
        systemctl = programs / "systemctl"
        systemctl.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_SYSTEMCTL} "$@"\n', encoding="utf-8")
        systemctl.chmod(0o755)
        if has_manager:
            (root / "run" / "systemd" / "system").mkdir(parents=True)
        self._environment = {
            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
            "FAKE_ROOT": str(root),
            "PYTHON": getattr(sys, "_base_executable", sys.executable),
        }

    def write_site(self, more: str = "") -> None:
        """Write a site file: the host itself, and *more*."""
        self.site.parent.mkdir(parents=True, exist_ok=True)
        self.site.write_text(
            "site: {id: branch-1}\n"
            "equipment:\n"
            "  this-host: {kind: host, period: 500ms}\n"
            "server:\n"
            f"  socket: {self.root}/run/changeover/control.sock\n"
            f"  state_dir: {self.state}\n"
            f'  metrics: "127.0.0.1:0"\n{more}',
            encoding="utf-8",
        )

    def install(self, archive: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the archive's install.sh."""
        return self.run(archive / "install.sh", "--root", self.root, "--watch", str(WATCH_S), *options)

    def installed(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the install.sh that was installed."""
        script = self.root / "opt/changeover/current/share/changeover/install.sh"
        return self.run(script, "--root", self.root, "--watch", str(WATCH_S), *options)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run *command* without a network; its output and errors come as one text."""
        # A file, not a pipe: what the command starts holds it open for as long as it lives.
        with (self.root / "said").open("w+", encoding="utf-8") as said:
            ended = subprocess.run(
                (*NO_NETWORK, *map(str, command)),
                check=False,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=TIMEOUT_S,
            )
            said.seek(0)
            return subprocess.CompletedProcess(ended.args, ended.returncode, said.read())

    def changeover(self, *words: str) -> str:
        """Return what the installed command prints."""
        ended = self.run(self.root / "usr/local/bin/changeover", *words)
        assert ended.returncode == 0, ended.stdout
        return str(ended.stdout)

    def status(self) -> dict[str, Any]:
        """Return the status of the agent."""
        said = self.changeover("status", "--json", "-c", str(self.site))
        return dict(json.loads(said[said.index("{") :]))

    def wait(self, is_it: Callable[[dict[str, Any]], Any]) -> None:
        """Wait for a status for which *is_it* holds."""
        deadline = boot_s() + PATIENCE_S
        while not is_it(status := self.status()):
            assert boot_s() < deadline, status
            threading.Event().wait(0.1)

    def release(self, name: str) -> str | None:
        """Return the version that `current` or `previous` leads to."""
        link = self.root / "opt" / "changeover" / name
        return link.readlink().name if link.is_symlink() else None

    def releases(self) -> set[str]:
        """Return the versions that are there."""
        return {path.name for path in (self.root / "opt/changeover/releases").iterdir()}

    def process(self) -> int:
        """Return the agent's process, 0 when it does not run."""
        return int(self.run("systemctl", "show").stdout)

    def running_version(self) -> str:
        """Return the version of the release whose Python the agent's process runs."""
        command = Path(f"/proc/{self.process()}/cmdline").read_bytes().split(b"\0")
        return Path(os.fsdecode(command[0])).parents[1].name

    def close(self) -> None:
        """End the agent."""
        self.run("systemctl", "disable", "--now")
