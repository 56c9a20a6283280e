"""The store of an agent whose journal cannot even be opened: nothing becomes durable, so nothing acts; watching goes on."""

from __future__ import annotations

from collections.abc import Sequence

from agent.ports import Entry


class NoStore:
    """Refuses every record with the reason why the journal could not be opened."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def append(self, entries: Sequence[Entry]) -> None:
        """Raise the error that kept the journal from being opened."""
        raise OSError(self._error.errno, str(self._error))

    def close(self) -> None:
        """Let go of nothing."""
