"""What the journal of an agent that is down remembers, read from a copy so that nothing of it can change."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.core.state import State
from agent.errors import ChangeoverError
from agent.runtime.journal_file import DATABASE, HEAD
from agent.runtime.journal_head import read_head
from agent.runtime.journal_open import read_tail
from agent.runtime.loop import JournalView
from agent.runtime.recall import recall

# The head first: records may be further than the head, never behind it. The log before what it is merged into.
FILES: Final = (HEAD, f"{DATABASE}-wal", DATABASE)


class NothingRemembered(ChangeoverError):
    """There is no journal."""


@dataclass(frozen=True, slots=True)
class Cold:
    """The state of an agent that is down; its volatile part is unknown."""

    state: State
    journal: JournalView


@contextmanager
def copied(state_dir: Path) -> Iterator[Path]:
    """Give a directory with a copy of the journal in *state_dir*, as far as there is one. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="changeover-") as folder:
        copy = Path(folder)
        for name in FILES:
            try:
                shutil.copyfile(state_dir / name, copy / name)
            except FileNotFoundError:
                continue
        yield copy


def remembered(state_dir: Path) -> Cold:
    """
    Return what the journal in *state_dir* remembers.

    Raises:
        NothingRemembered: there is none.
        JournalBroken: it cannot be trusted.
        OSError: it cannot be read.
    """
    with copied(state_dir) as copy:
        tail = read_tail(copy, read_head(copy / HEAD))
    if tail is None:
        raise NothingRemembered(f"there is no journal in {state_dir}")
    seq, digest = tail.head
    return Cold(State(recall(tail.checkpoint, tail.bodies)), JournalView(seq, seq, digest, True, "", tail.cut, None))
