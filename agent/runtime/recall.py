"""From what a journal holds to the state that it remembers: the checkpoint, and the records after it, applied."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent.core.apply import apply
from agent.core.records import Record
from agent.core.state import Durable, in_order
from agent.runtime.codec import from_plain


def recall(checkpoint: str | None, bodies: Sequence[str]) -> Durable:
    """Return the durable state. Raises codec.PlainError for a record that this version cannot read."""
    durable: Durable = in_order(from_plain(Durable, json.loads(checkpoint))) if checkpoint else Durable()
    for body in bodies:
        durable = apply(durable, from_plain(Record, json.loads(body)))
    return durable
