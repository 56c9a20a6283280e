"""
The journal's hash chain, as values: how records are linked, what a checkpoint looks like, and how far a chain holds.

The digest of a record is SHA-256 over the digest before it, its number and its body, so that no record can be altered,
removed, put in or moved without every later digest telling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import JournalBroken
from agent.ports import Entry
from agent.runtime.codec import digest

Head = tuple[int, str]  # number and digest of the last record; (0, "") before the first

BEFORE_ALL: Final[Head] = (0, "")  # no record yet
CHECKPOINT: Final = '{"checkpoint":'
OLDER: Final = ',"older_digest":"'
DIGEST_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Filled:
    """How much the present segment holds since its checkpoint."""

    entries: int = 0
    size_bytes: int = 0

    def plus(self, bodies: Sequence[str]) -> Filled:
        """Return this with *bodies* added (characters stand for bytes; it is only a measure)."""
        return Filled(self.entries + len(bodies), self.size_bytes + sum(map(len, bodies)))


EMPTY: Final = Filled()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state that a segment starts from, and the head of the chain before it."""

    state: str
    state_digest: str
    older: Head

    def is_sound(self) -> bool:
        """Say whether the state is the one that its digest was made of."""
        return digest(self.state, "") == self.state_digest


def chain_digest(seq: int, body: str, previous: str) -> str:
    """Return the digest of record *seq*. *previous* is the digest of the record before, "" before the first."""
    return digest(f"{seq}\n{body}", previous)


def link(bodies: Iterable[str], head: Head) -> tuple[Entry, ...]:
    """Return *bodies* as the entries that follow *head*."""
    seq, previous = head
    entries = []
    for body in bodies:
        seq += 1
        previous = chain_digest(seq, body, previous)
        entries.append(Entry(seq, body, previous))
    return tuple(entries)


def is_checkpoint(body: str) -> bool:
    """Say whether *body* starts a segment."""
    return body.startswith(CHECKPOINT)


def checkpoint_body(state: str, older: Head) -> str:
    """Return the body of a checkpoint of *state* (JSON text) after *older*; keys in canonical order."""
    return f'{CHECKPOINT}{state}{OLDER}{older[1]}","older_seq":{older[0]},"state_digest":"{digest(state, "")}"}}'


def read_checkpoint(body: str) -> Checkpoint | None:
    """Return the checkpoint in *body*, None when there is none or it is not well formed."""
    cut = body.rfind(OLDER)
    if not is_checkpoint(body) or cut < 0:
        return None
    older_digest, _, rest = body[cut + len(OLDER) :].partition('","older_seq":')
    older_seq, _, rest = rest.partition(',"state_digest":"')
    if not (older_seq.isascii() and older_seq.isdigit() and rest.endswith('"}')):
        return None
    return Checkpoint(body[len(CHECKPOINT) : cut], rest[:-2], (int(older_seq), older_digest))


class Walk:
    """A walk along the chain: takes one record after the other and says what is wrong with the next."""

    def __init__(self, first_seq: int) -> None:
        self.seq = first_seq - 1
        self.digest: str | None = "" if first_seq == 1 else None
        self.checkpoint: str | None = None
        self.checkpoint_seqs: list[int] = []
        self.bodies: list[str] = []

    def fault(self, row: Entry | None) -> str:
        """Take *row* (None: could not be read) and return "", or say why it is not the next record."""
        wanted = self.seq + 1
        if row is None:
            return f"record {wanted} cannot be read"
        if row.seq != wanted:
            return f"record {wanted} is missing, {row.seq} comes instead"
        checkpoint = read_checkpoint(row.body)
        if is_checkpoint(row.body) and (checkpoint is None or not checkpoint.is_sound()):
            return f"the checkpoint in record {wanted} is damaged"
        previous = self.digest
        if previous is None:  # a segment whose forerunner is not looked at, or has been exported
            if checkpoint is None:
                return f"record {wanted} should be a checkpoint"
            previous = checkpoint.older[1]
        if row.digest != chain_digest(row.seq, row.body, previous):
            return f"record {wanted} is altered, or the one before it is"
        if checkpoint is not None and checkpoint.older != (self.seq, previous):
            return f"the checkpoint in record {wanted} does not follow record {self.seq}"
        self._take(row, checkpoint)
        return ""

    def _take(self, row: Entry, checkpoint: Checkpoint | None) -> None:
        self.seq, self.digest = row.seq, row.digest
        if checkpoint is None:
            self.bodies.append(row.body)
            return
        self.checkpoint = checkpoint.state
        self.checkpoint_seqs.append(row.seq)
        self.bodies = []


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a chain that holds: its head, the last checkpoint's state, the bodies after it, and what must go."""

    head: Head
    checkpoint: str | None
    bodies: tuple[str, ...]
    cut_from: int | None = None
    cut: str | None = None

    @property
    def filled(self) -> Filled:
        """Return how full the present segment is."""
        return EMPTY.plus(self.bodies)


def check_tail(rows: Iterable[Entry | None], head: Head, first_seq: int) -> Tail:
    """
    Return the tail of the chain in *rows*, which start at the segment of *first_seq*, held against *head*.

    Records after the head that hold are taken: they were committed and only the head was not written any more. From
    the first that does not hold, after the head, the rest is to be cut.

    Raises:
        JournalBroken: a record up to the head is missing or altered, or is another one than the head says.
    """
    walk = Walk(first_seq)
    head_seq, head_digest = head
    cut = None
    for row in rows:
        fault = walk.fault(row)
        if fault and walk.seq < head_seq:
            raise JournalBroken(walk.seq + 1, fault)
        if fault:
            cut = fault
            break
        if walk.seq == head_seq and walk.digest != head_digest:
            raise JournalBroken(head_seq, "the last record is another one than the head says")
    if walk.seq < head_seq:
        raise JournalBroken(walk.seq + 1, f"ends at record {walk.seq}, the head says {head_seq}")
    return Tail(
        head=(walk.seq, walk.digest or ""),
        checkpoint=walk.checkpoint,
        bodies=tuple(walk.bodies),
        cut_from=walk.seq + 1 if cut else None,
        cut=f"cut from record {walk.seq + 1} on, after the head: {cut}" if cut else None,
    )
