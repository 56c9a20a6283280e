"""
Asks for a password before a page is given (RFC 7617), and lets nobody guess.

Checking a password is made to cost much. A right one is remembered by a keyed digest, so that a scrape costs it once; wrong
ones are counted by address and altogether, and beyond the count nothing is checked for a while.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.clock import Clock
from agent.passwords import BLOCK, COST, DIGEST_BYTES, LANES, PASSWORD_BYTES_MAX, SALT_BYTES, Hash

FAILURES_MAX: Final = 5  # of one address ...
FAILURES_OF_ALL_MAX: Final = 60  # ... of all together; remembered passwords go on to be taken then
WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 1024
REMEMBERED_MAX: Final = 64
NET_BITS: Final = 64  # whoever has one address of an IPv6 network has all of it

log = logging.getLogger(__name__)

Failed = deque[float]


class Throttle:
    """Counts failures of the last minute, by address and altogether. Instants are boot seconds."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, Failed] = OrderedDict()
        self._of_all: Failed = deque(maxlen=FAILURES_OF_ALL_MAX)

    def wait_s(self, address: str, now_s: float) -> float:
        """Return for how long *address* is not listened to, zero when it is."""
        return left_s(self._of.get(address), FAILURES_MAX, now_s)

    def wait_of_all_s(self, now_s: float) -> float:
        """Return for how long no password is checked at all, zero when one is."""
        return left_s(self._of_all, FAILURES_OF_ALL_MAX, now_s)

    def failed(self, address: str, now_s: float) -> None:
        """Count one failure."""
        mine = self._of.pop(address, None) or deque(maxlen=FAILURES_MAX)
        mine.append(now_s)
        self._of[address] = mine
        self._of_all.append(now_s)
        if len(self._of) > ADDRESSES_MAX:
            self._of.popitem(last=False)
        if len(mine) == FAILURES_MAX and now_s - mine[0] < WINDOW_S:
            log.warning("web.guessing address=%s failures=%d", address, FAILURES_MAX)


def left_s(failures: Failed | None, count: int, now_s: float) -> float:
    """Return until when *failures*, of which *count* are too many, are within the window."""
    if failures is None or len(failures) < count:
        return 0.0
    return max(0.0, failures[0] + WINDOW_S - now_s)


class Guard:
    """An application behind passwords; `users` None lets everybody through. Others may set `users` anew at any time."""

    def __init__(self, application: ASGIApp, clock: Clock, users: Mapping[str, Hash] | None) -> None:
        self._application = application
        self._clock = clock
        self._throttle = Throttle()
        self._checking = asyncio.Lock()  # one at a time: each takes 16 MiB or more, and a core
        self._nobody = nobody()
        self._pepper = b""
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._users: Mapping[str, Hash] | None = None
        self.admit(users)

    def admit(self, users: Mapping[str, Hash] | None) -> None:
        """Let *users* in from now on, and forget who was let in before."""
        self._users = users
        self._pepper = secrets.token_bytes(32)
        self._remembered.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page, or with 401 or 429."""
        if self._users is not None and scope["type"] == "http":
            refusal = await self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._application(scope, receive, send)

    async def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        address = counted_as((scope.get("client") or ("",))[0])
        wait_s = self._throttle.wait_s(address, self._now_s())
        if wait_s > 0:
            return too_many(wait_s)
        if header is None:
            return not_allowed()  # the usual first request of a browser; nothing was guessed
        found = user_and_password(header)
        if found is None:
            self._throttle.failed(address, self._now_s())
            return not_allowed()
        return await self._check(address, *found)

    async def _check(self, address: str, user: str, password: str) -> PlainTextResponse | None:
        mark = hmac.digest(self._pepper, f"{user}\0{password}".encode("utf-8", "surrogatepass"), "sha256")
        if mark in self._remembered:
            self._remembered.move_to_end(mark)
            return None
        async with self._checking:
            # Asked again: while this one waited, others of the same address may have failed.
            wait_s = max(self._throttle.wait_s(address, self._now_s()), self._throttle.wait_of_all_s(self._now_s()))
            if wait_s > 0:
                return too_many(wait_s)
            users, pepper = self._users or {}, self._pepper
            kept = users.get(user)
            is_right = await asyncio.to_thread((kept or self._nobody).matches, password) and kept is not None
            if not is_right:
                self._throttle.failed(address, self._now_s())
                return not_allowed()
            if pepper is self._pepper:  # else the passwords were read anew meanwhile
                self._remembered[mark] = None
                if len(self._remembered) > REMEMBERED_MAX:
                    self._remembered.popitem(last=False)
        return None

    def _now_s(self) -> float:
        return self._clock.now().boot_s


def nobody() -> Hash:
    """Return a hash that no password has: to check an unknown name costs as much as to check a wrong password."""
    return Hash(COST, BLOCK, LANES, secrets.token_bytes(SALT_BYTES), secrets.token_bytes(DIGEST_BYTES))


def counted_as(host: str) -> str:
    """Return under what an address is counted: an IPv4 address by itself, an IPv6 one by its network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address), NET_BITS), strict=False))
    return str(address)


def user_and_password(header: bytes) -> tuple[str, str] | None:
    """Return what an Authorization header says, None when it is not of the kind that is asked for."""
    scheme, _, words = header.partition(b" ")
    if scheme.lower() != b"basic" or len(words) > 2 * PASSWORD_BYTES_MAX:
        return None
    try:
        user, colon, password = base64.b64decode(words.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        return None
    return (user, password) if colon else None


def not_allowed() -> PlainTextResponse:
    """Return the answer that asks for a password."""
    words = {"WWW-Authenticate": 'Basic realm="changeover", charset="UTF-8"'}
    return PlainTextResponse("a user and a password are needed\n", status_code=401, headers=words)


def too_many(wait_s: float) -> PlainTextResponse:
    """Return the answer to one who has guessed too often."""
    words = {"Retry-After": str(max(1, int(wait_s + 0.999)))}
    return PlainTextResponse("too many wrong passwords; wait\n", status_code=429, headers=words)
