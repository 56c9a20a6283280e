"""
The agent with a journal that kills the process: `python -m tests.peers.crashing_agent --after RunOpened run -c site.yaml`.

It is killed as soon as the first record of that kind is durable, and before anybody hears of it. The store in front of the
real one does it; the program itself knows nothing of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent import app
from agent.cli import main
from agent.ports import Entry, JournalStore
from agent.runtime.journal import Opened, open_journal
from agent.runtime.journal_store import StoreLimits


class KillingStore:
    """A store in front of another, which kills the process once the first record of *kind* is durable."""

    def __init__(self, inner: JournalStore, kind: str) -> None:
        self._inner = inner
        self._kind = kind

    def append(self, entries: Sequence[Entry]) -> None:
        """Make *entries* durable, up to the record with which it all ends."""
        for index, entry in enumerate(entries):
            if self._kind == kind_of(entry):
                self._inner.append(entries[: index + 1])
                os.kill(os.getpid(), signal.SIGKILL)
        self._inner.append(entries)

    def close(self) -> None:
        """Close the store behind."""
        self._inner.close()


def kind_of(entry: Entry) -> str:
    """Return the kind of a record's body."""
    body = json.loads(entry.body).get("body")
    return str(body["kind"]) if isinstance(body, dict) else ""


def run(kind: str, arguments: Sequence[str]) -> None:
    """Run the program with *arguments*, until the first record of *kind* is durable."""

    def opened(directory: Path, limits: StoreLimits | None = None) -> Opened:
        journal = open_journal(directory, limits)
        return replace(journal, store=KillingStore(journal.store, kind))  # type: ignore[arg-type]

    app.open_journal = opened  # type: ignore[attr-defined]
    main(arguments, prog_name="changeover")


if __name__ == "__main__":
    run(sys.argv[2], sys.argv[3:])
