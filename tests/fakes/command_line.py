"""The command line against the real core: a socket in a thread, and the journal of an agent that is down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from agent.cli import main
from agent.control import ControlServer
from agent.runtime.codec import canonical
from agent.runtime.journal_chain import checkpoint_body, link
from agent.runtime.journal_open import open_journal
from tests.fakes.desk import Desk
from tests.fakes.sites import Driver

SITE = """
site: {{id: b1, name: Branch one}}
equipment:
  wan1: {{kind: line, role: primary, profile: fast, interface: eth1, gateway: 192.0.2.1,
          targets: {{cpe: 192.0.2.1, edge: 198.51.100.1, hq: 203.0.113.1}}}}
  wan2: {{kind: line, role: standby, profile: fast, interface: eth2, gateway: 192.0.2.129,
          targets: {{cpe: 192.0.2.129, edge: 198.51.100.129, hq: 203.0.113.1}}}}
runbooks:
  standby: {{use: standby_line, mode: auto, bind: {{primary: wan1, standby: wan2}}}}
server: {{socket: {folder}/control.sock, state_dir: {folder}/state}}
"""


def site_file(folder: Path) -> Path:
    """Write a site file whose socket and state are in *folder*."""
    path = folder / "site.yaml"
    path.write_text(SITE.format(folder=folder), encoding="utf-8")
    return path


def command(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(word) for word in words])


def write_journal(folder: Path, driver: Driver, *, checkpoint_after: int | None = None) -> None:
    """Make the journal that *driver* would have left in *folder*, with a checkpoint after so many records."""
    folder.mkdir()
    opened = open_journal(folder)
    bodies = [canonical(record) for record in driver.records]
    head = opened.head
    for part in (bodies[:checkpoint_after], bodies[checkpoint_after:] if checkpoint_after is not None else []):
        if part:
            entries = link(part, head)
            opened.store.append(entries)
            head = (entries[-1].seq, entries[-1].digest)
        if checkpoint_after is not None and part == bodies[:checkpoint_after]:
            entries = link([checkpoint_body("{}", head)], head)
            opened.store.append(entries)
            head = (entries[-1].seq, entries[-1].digest)
    opened.store.close()


@contextmanager
def running(path: Path, desk: Desk) -> Iterator[None]:
    """A control socket with *desk* behind it, in a thread: the command line waits for its answers."""
    up, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with ControlServer(path, desk):
            up.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
