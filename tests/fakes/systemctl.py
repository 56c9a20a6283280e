"""
As much of `systemctl` as install.sh asks for, for one service below $FAKE_ROOT: it starts the unit's own ExecStart and
waits for READY=1, as systemd does for Type=notify. It neither drops rights nor starts anything anew.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_ROOT"])
STATE = ROOT / "run" / "systemd" / "system"
PROCESS, ENABLED = STATE / "changeover.pid", STATE / "changeover.enabled"
UNIT = ROOT / "usr" / "lib" / "systemd" / "system" / "changeover.service"
LOG = ROOT / "agent.log"
START_WITHIN_S = 20.0
STOP_WITHIN_S = 20.0


def main_process() -> int:
    """Return the process of the service, 0 when it does not run."""
    try:
        process = int(PROCESS.read_text(encoding="ascii"))
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state == "Z" else process


def stop() -> None:
    """End the service, and wait until it has ended."""
    process = main_process()
    if process:
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN_S
    while main_process():
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    PROCESS.unlink(missing_ok=True)


def start() -> int:
    """Start the service; return 0 once it is ready, 1 when it ends or does not say so in time."""
    (line,) = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    words = [f"{ROOT}{word}" if word.startswith("/") else word for word in line.split()]
    address = STATE / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, LOG.open("ab") as log:
        listener.bind(str(address))
        listener.settimeout(0.1)
        environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
        service = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        PROCESS.write_text(f"{service.pid}\n", encoding="ascii")
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline and service.poll() is None:
            try:
                if b"READY=1" in listener.recv(4096).split(b"\n"):
                    return 0
            except TimeoutError:
                continue
    return 1


def main(verb: str, *options: str) -> int:
    """Do what `systemctl VERB` does; return its exit code."""
    match verb:
        case "enable":
            ENABLED.touch()
        case "disable":
            ENABLED.unlink(missing_ok=True)
            if "--now" in options:
                stop()
        case "restart":
            stop()
            return start()
        case "is-active":
            return 0 if main_process() else 3
        case "is-enabled":
            return 0 if ENABLED.exists() else 1
        case "show":
            print(main_process())
        case "daemon-reload":
            pass
        case _:
            sys.exit(f"the fake knows no systemctl {verb}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
