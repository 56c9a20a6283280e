"""
The journal's head beside the journal: number and digest of the last durable record, in two slots written in turn.

Only one slot is written at a time, and each lies in a page of its own, so that a write that was torn leaves the other.
Without this file a journal that lost its end could not be told from one that never had it: SQLite drops damaged frames
at the end of its log without a word.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.runtime.journal_chain import DIGEST_LENGTH, Head
from agent.runtime.state_dir import fsync_directory

SLOT: Final = struct.Struct("<8sQQ32s")  # magic, generation, seq, digest; then the CRC
CRC: Final = struct.Struct("<I4x")
SLOT_SIZE: Final = SLOT.size + CRC.size  # 64
SLOT_AT: Final = (0, 4096)  # one page each
FILE_SIZE: Final = SLOT_AT[1] + SLOT_SIZE
MAGIC: Final = b"chgohead"
NO_DIGEST: Final = bytes(DIGEST_LENGTH // 2)


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot that could be read."""

    generation: int
    head: Head


@dataclass(frozen=True, slots=True)
class HeadFile:
    """The head file as read; a slot that cannot be read is None. `is_clean` False: something between the slots."""

    slots: tuple[Slot | None, Slot | None]
    is_clean: bool = True

    @property
    def newest(self) -> Slot | None:
        """Return the slot written last, None when neither can be read."""
        return max((slot for slot in self.slots if slot), key=lambda slot: slot.generation, default=None)


def read_head(path: Path) -> HeadFile | None:
    """Return what *path* holds, None when there is no such file. Raises OSError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    first, second = (_unpack(raw[start : start + SLOT_SIZE]) for start in SLOT_AT)
    gap = raw[SLOT_AT[0] + SLOT_SIZE : SLOT_AT[1]]
    return HeadFile((first, second), is_clean=not any(gap) and len(raw) == FILE_SIZE)


def create_head(path: Path, head: Head) -> None:
    """Make a head file at *path*, both slots good, in one step: it is there whole or not at all. Raises OSError."""
    raw = bytearray(FILE_SIZE)
    for generation, start in enumerate(SLOT_AT, start=1):
        raw[start : start + SLOT_SIZE] = _pack(Slot(generation, head))
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, raw)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)
    fsync_directory(path.parent)


class HeadWriter:
    """Writes the head, always into the slot that does not hold the newest good one."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR)
        held = read_head(path) or HeadFile((None, None))
        newest = held.newest
        self._generation = newest.generation if newest else 0
        self._slot = 1 if newest and newest is held.slots[0] else 0

    def write(self, head: Head) -> None:
        """Make *head* durable. After a failure the other slot is as good as before. Raises OSError."""
        raw = _pack(Slot(self._generation + 1, head))
        if os.pwrite(self._descriptor, raw, SLOT_AT[self._slot]) != SLOT_SIZE:
            raise OSError(f"the head was written in part only ({SLOT_SIZE} bytes wanted)")
        os.fdatasync(self._descriptor)
        self._generation += 1
        self._slot = 1 - self._slot

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _pack(slot: Slot) -> bytes:
    seq, digest = slot.head
    raw = SLOT.pack(MAGIC, slot.generation, seq, bytes.fromhex(digest) or NO_DIGEST)
    return raw + CRC.pack(zlib.crc32(raw))


def _unpack(raw: bytes) -> Slot | None:
    if len(raw) != SLOT_SIZE or raw[SLOT.size :] != CRC.pack(zlib.crc32(raw[: SLOT.size])):
        return None
    magic, generation, seq, digest = SLOT.unpack(raw[: SLOT.size])
    if magic != MAGIC:
        return None
    return Slot(generation, (seq, "" if digest == NO_DIGEST else digest.hex()))
