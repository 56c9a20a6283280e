"""
The in-process executor: performs commands one at a time, and a key that has a result never again.

Order for a new key: refuse or record `accepted`, tell the owner, perform, record `result`, answer. What was accepted
runs to its end also when the caller goes away: half a command is worse than a whole one that nobody waits for.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from agent.clock import Clock
from agent.core.model import Outcome, Request
from agent.errors import ActionFailed
from agent.ports import Action, ActionKind
from agent.runtime.ledger import Ledger, Row, RowKind

DEADLINE_S: Final = 10.0  # far above what a healthy host needs; a step waits about as long for its proof
CANCEL_GRACE_S: Final = 1.0  # what a cancelled action gets to clean up
SENT_MAX: Final = 2  # once, and once again after a restart when the verb is harmless to send twice
DETAIL_CHARS_MAX: Final = 500

Answered = tuple[Outcome, str]

log = logging.getLogger(__name__)


class Executor:
    """
    The door through which commands leave. *actions* maps each verb to its kind and to the action bound to this site;
    *on_accepted* is called with the key once its acceptance is durable, before anything is touched.
    """

    def __init__(
        self,
        actions: Mapping[str, tuple[ActionKind, Action]],
        ledger: Ledger,
        clock: Clock,
        on_accepted: Callable[[str], None],
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._actions = actions
        self._ledger = ledger
        self._clock = clock
        self._on_accepted = on_accepted
        self._deadline_s = deadline_s
        self._actuating = asyncio.Lock()
        self._under_way: dict[str, asyncio.Task[Answered]] = {}
        self._stuck: asyncio.Task[str] | None = None

    async def perform(self, request: Request) -> Answered:
        """Accept durably, perform, record, answer. A key that has a result is answered from the record."""
        task = self._under_way.get(request.key)
        if task is None:
            task = asyncio.create_task(self._handle(request), name=f"command {request.key}")
            self._under_way[request.key] = task
            task.add_done_callback(lambda _: self._under_way.pop(request.key))
        return await asyncio.shield(task)

    def rebind(self, actions: Mapping[str, tuple[ActionKind, Action]]) -> None:
        """Perform by *actions* from now on; a command that is under way ends as it began."""
        self._actions = actions

    async def outcome(self, key: str) -> Answered:
        """Return what became of *key*; one that is under way is waited for."""
        if (task := self._under_way.get(key)) is not None:
            return await asyncio.shield(task)
        try:
            return _standing(await self._ledger.rows(key))
        except OSError as error:
            return Outcome.UNCERTAIN, f"the record cannot be read: {error}"

    async def close(self) -> None:
        """Wait for what is under way, within its deadline, and let go of the ledger."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=self._deadline_s + CANCEL_GRACE_S)
        await self._ledger.close()

    async def _handle(self, request: Request) -> Answered:
        async with self._actuating:
            try:
                rows = await self._ledger.rows(request.key)
            except OSError as error:
                return Outcome.REFUSED, f"the record cannot be read: {error}"
            if (known := _known(rows, request, self._is_resendable(request.verb))) is not None:
                return known
            if (reason := self._refusal(request)) is not None:
                return await self._refuse(request, rows, RowKind.REFUSED, reason)
            try:
                await self._ledger.append(self._row(request, RowKind.ACCEPTED))
            except OSError as error:
                return Outcome.REFUSED, f"the acceptance could not be recorded: {error}"
            # The disk may have taken its time, and we may have been stopped: what was fresh need not be so any more.
            if (reason := self._refusal(request)) is not None:
                return await self._refuse(request, rows, RowKind.RESULT, reason)
            self._on_accepted(request.key)
            return await self._actuate(request)

    async def _actuate(self, request: Request) -> Answered:
        """Perform what was accepted, record the result and return it."""
        outcome, detail = await self._performed(request)
        try:
            await self._ledger.append(self._row(request, RowKind.RESULT, outcome, detail))
        except OSError as error:
            # The truth is told all the same; after a restart the key would be uncertain.
            log.error("executor.result_not_recorded key=%s error=%s", request.key, error)
            detail = f"{detail} (the result could not be recorded: {error})"
        log.info(
            "executor.%s key=%s verb=%s undo=%s detail=%s", outcome, request.key, request.verb, request.undo, detail
        )
        return outcome, detail

    async def _performed(self, request: Request) -> Answered:
        _, action = self._actions[request.verb]
        command = action.undo(request) if request.undo else action.perform(request)
        task = asyncio.ensure_future(command)
        await asyncio.wait({task}, timeout=self._deadline_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
            if not task.done():
                self._stuck = task  # it may still act, so nothing else may until it ends
            return Outcome.FAILED, f"no end within {self._deadline_s:g} s"
        if task.cancelled():
            return Outcome.FAILED, "the command was cancelled from within"
        if (error := task.exception()) is None:
            return Outcome.DONE, _line(task.result())
        if not isinstance(error, ActionFailed):
            log.error("executor.action_broke key=%s verb=%s", request.key, request.verb, exc_info=error)
            return Outcome.FAILED, _line(f"{type(error).__name__}: {error}")
        return Outcome.FAILED, _line(str(error))

    def _refusal(self, request: Request) -> str | None:
        """Return why *request* may not be performed now, None when it may."""
        if request.verb not in self._actions:
            return f"unknown verb {request.verb!r}; known: {', '.join(sorted(self._actions))}"
        late_s = self._clock.now().boot_s - request.expires_at
        if late_s > 0:
            return f"the request expired {late_s:.1f} s ago"
        if self._stuck is not None and not self._stuck.done():
            return "an earlier command has not ended"
        return None

    async def _refuse(self, request: Request, earlier: tuple[Row, ...], kind: RowKind, reason: str) -> Answered:
        """Record and return a refusal; what *earlier* rows leave uncertain stays so."""
        try:
            await self._ledger.append(self._row(request, kind, Outcome.REFUSED, reason))
        except OSError as error:
            log.error("executor.refusal_not_recorded key=%s error=%s", request.key, error)
        log.info("executor.refused key=%s verb=%s reason=%s", request.key, request.verb, reason)
        if _open_acceptances(earlier):
            return Outcome.UNCERTAIN, f"{_standing(earlier)[1]}; not sent again: {reason}"
        return Outcome.REFUSED, reason

    def _is_resendable(self, verb: str) -> bool:
        return verb in self._actions and self._actions[verb][0].resendable

    def _row(self, request: Request, kind: RowKind, outcome: Outcome | None = None, detail: str = "") -> Row:
        return Row(request.key, kind, self._clock.now(), _command(request), outcome, detail)


def _known(rows: tuple[Row, ...], request: Request, is_resendable: bool) -> Answered | None:
    """Return the answer that *rows* of the request's key already give, None when it may be performed (again)."""
    if not rows:
        return None
    if rows[-1].command != _command(request):
        return Outcome.REFUSED, f"key {request.key} belongs to another command: {rows[-1].command}"
    standing = _standing(rows)
    if standing[0] is Outcome.REFUSED:
        return None if request.resend else standing  # nothing was touched, so that this would be the first time
    if standing[0] is not Outcome.UNCERTAIN:
        return standing
    if request.resend and is_resendable and len(_open_acceptances(rows)) < SENT_MAX:
        return None
    return standing


def _standing(rows: tuple[Row, ...]) -> Answered:
    """Return what the *rows* of one key say became of it."""
    if not rows:
        return Outcome.NEVER, "no record of this key"
    for row in rows:
        if row.outcome is not None and row.outcome is not Outcome.REFUSED:
            return row.outcome, row.detail
    if opened := _open_acceptances(rows):
        at = opened[-1].at
        return Outcome.UNCERTAIN, f"accepted at {at.boot_s:.3f} s of boot {at.boot_id}, no result on record"
    return Outcome.REFUSED, rows[-1].detail


def _open_acceptances(rows: tuple[Row, ...]) -> list[Row]:
    """Return the acceptances among the *rows* of one key of which no result tells what came of them."""
    opened: list[Row] = []
    for row in rows:
        if row.kind is RowKind.ACCEPTED:
            opened.append(row)
        elif row.kind is RowKind.RESULT:
            opened.pop()
    return opened


def _command(request: Request) -> str:
    """Return what *request* commands, as canonical text: the same for every resend of one key."""
    words = {"verb": request.verb, "wanted": request.wanted, "undo": request.undo, "run": request.run}
    numbers = {"step": request.step, "attempt": request.attempt}
    return json.dumps(words | numbers, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _line(detail: str) -> str:
    """Return *detail* as one line of limited length."""
    plain = "".join(character if character.isprintable() else " " for character in detail)
    return plain if len(plain) <= DETAIL_CHARS_MAX else plain[: DETAIL_CHARS_MAX - 1] + "…"
