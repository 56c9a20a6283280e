"""Small actions, requests and ledgers for tests of the executor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agent.core.model import Request, Value
from agent.errors import ActionFailed
from agent.ports import Action, ActionContext, ActionKind
from agent.runtime.ledger import MemoryLedger, Row, RowKind


class Lamp:
    """An action that switches a lamp and counts how often; `works` False makes it fail after it has moved."""

    def __init__(self, *, takes_s: float = 0.0, works: bool = True) -> None:
        self.moves: list[str] = []
        self.busy = 0
        self.busiest = 0
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self._takes_s = takes_s
        self._works = works

    async def perform(self, request: Request) -> str:
        return await self._move("on")

    async def undo(self, request: Request) -> str:
        return await self._move("off")

    async def _move(self, position: str) -> str:
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        self.started.set()
        try:
            await asyncio.sleep(self._takes_s)
        finally:
            self.busy -= 1
        self.moves.append(position)
        if not self._works:
            raise ActionFailed(f"lamp went {position}, its contact says otherwise")
        return f"lamp is {position}"


class Waiting(Lamp):
    """A lamp that moves when `may_end` is set."""

    async def _move(self, position: str) -> str:
        self.started.set()
        await self.may_end.wait()
        return await super()._move(position)


class Stubborn(Lamp):
    """A lamp that does not let itself be cancelled before `may_end` is set."""

    async def _move(self, position: str) -> str:
        self.started.set()
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                continue
        return await super()._move(position)


class Broken(Lamp):
    """An action with a mistake in it."""

    async def _move(self, position: str) -> str:
        raise ZeroDivisionError("division by\nzero")


class FullDisk(MemoryLedger):
    """A ledger that cannot keep rows of *kind*."""

    def __init__(self, kind: RowKind) -> None:
        super().__init__()
        self._kind = kind

    async def append(self, row: Row) -> None:
        if row.kind is self._kind:
            raise OSError("no space left on device")
        await super().append(row)


def verb(action: Action, *, resendable: bool = True) -> tuple[ActionKind, Action]:
    """Return *action* as a row of the executor's table."""

    def make(context: ActionContext) -> Action:
        return action

    def nothing(params: object, bind: Mapping[str, str]) -> Mapping[str, Value]:
        return {}

    return ActionKind("lamp", dict, "lamp-bus", resendable, make, nothing, nothing), action


def request(
    key: str = "run-1/1/1", *, name: str = "lamp", undo: bool = False, resend: bool = False, expires_at: float = 60.0
) -> Request:
    """Return a request of the executor."""
    return Request(key, name, (("to", "on"),), undo, "run-1", 1, 1, resend, (), expires_at)
