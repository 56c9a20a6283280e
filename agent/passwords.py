"""
Passwords as a file keeps them: one line `USER:scrypt$N$R$P$SALT$DIGEST` for each user (RFC 7914, salt and digest in
base64), made by `changeover password USER`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import ChangeoverError

USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,39}")
PASSWORD_CHARS_MIN: Final = 12
PASSWORD_BYTES_MAX: Final = 1024
USERS_MAX: Final = 100
COST: Final = 2**14  # with R and P: 16 MiB and some 50 ms for one look, on the machine of a branch
BLOCK: Final = 8
LANES: Final = 1
SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32
MEMORY_MAX: Final = 64 * 1024 * 1024  # a line of the file must not make the agent outgrow its limit
COST_MIN: Final = 2**14


class PasswordFileError(ChangeoverError):
    """A line of a password file is wrong; the text has its number, and never what stands in it."""


@dataclass(frozen=True, slots=True)
class Hash:
    """One password as it is kept. `cost`, `block`, `lanes` are scrypt's N, r and p."""

    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    def matches(self, password: str) -> bool:
        """Tell whether *password* is the one. Takes the time that its cost asks for, the same for right and wrong."""
        made = derived(password, self.salt, self.cost, self.block, self.lanes, len(self.digest))
        return hmac.compare_digest(made, self.digest)

    def text(self) -> str:
        """Return it as it stands in the file."""
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt${self.cost}${self.block}${self.lanes}${salt}${digest}"


def derived(password: str, salt: bytes, cost: int, block: int, lanes: int, length: int) -> bytes:
    """Return the key that scrypt derives from *password*."""
    words = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(words, salt=salt, n=cost, r=block, p=lanes, maxmem=2 * MEMORY_MAX, dklen=length)


def hashed(password: str) -> Hash:
    """Return *password* as it is to be kept, under a salt of its own."""
    salt = secrets.token_bytes(SALT_BYTES)
    return Hash(COST, BLOCK, LANES, salt, derived(password, salt, COST, BLOCK, LANES, DIGEST_BYTES))


def why_not_password(password: str) -> str | None:
    """Return why *password* is not good enough, None when it is."""
    if len(password) < PASSWORD_CHARS_MIN:
        return f"a password has at least {PASSWORD_CHARS_MIN} characters"
    if len(password.encode("utf-8", "surrogatepass")) > PASSWORD_BYTES_MAX:
        return f"a password has at most {PASSWORD_BYTES_MAX} bytes"
    return None


def line(user: str, password: str) -> str:
    """Return the line of *user* for the file. Raises ValueError for a name that cannot stand there."""
    if USER.fullmatch(user) is None:
        raise ValueError("a user's name has letters, digits and . _ @ -, at most 40")
    return f"{user}:{hashed(password).text()}"


def parsed(text: str) -> Mapping[str, Hash]:
    """Return the users in the text of a password file. Empty lines and those that begin with # say nothing.

    Raises PasswordFileError.
    """
    found: dict[str, Hash] = {}
    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip() or row.lstrip().startswith("#"):
            continue
        user, colon, kept = row.strip().partition(":")
        if not colon or USER.fullmatch(user) is None:
            raise PasswordFileError(f"line {number}: must be USER:HASH; make it with: changeover password USER")
        if user in found:
            raise PasswordFileError(f"line {number}: {user} stands there twice")
        found[user] = parsed_hash(kept, number)
    if not found:
        raise PasswordFileError("it names no user; make a line with: changeover password USER")
    if len(found) > USERS_MAX:
        raise PasswordFileError(f"it names more than {USERS_MAX} users")
    return found


def parsed_hash(text: str, number: int) -> Hash:
    """Return one kept password. Raises PasswordFileError."""
    try:
        kind, cost, block, lanes, salt, digest = text.split("$")
        numbers = (int(cost), int(block), int(lanes))
        parts = (base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))
    except (ValueError, binascii.Error) as error:
        raise PasswordFileError(f"line {number}: {NOT_A_HASH}") from error
    found = Hash(*numbers, *parts)
    if kind != "scrypt" or not is_sound(found):
        raise PasswordFileError(f"line {number}: {NOT_A_HASH}")
    return found


def is_sound(kept: Hash) -> bool:
    """Tell whether *kept* is neither too weak nor more than the agent can afford."""
    is_power = kept.cost >= COST_MIN and kept.cost & (kept.cost - 1) == 0
    is_affordable = 1 <= kept.lanes <= 4 and kept.block >= BLOCK and 128 * kept.cost * kept.block <= MEMORY_MAX
    return is_power and is_affordable and len(kept.salt) >= SALT_BYTES and len(kept.digest) == DIGEST_BYTES


NOT_A_HASH: Final = (
    f"the hash must be scrypt$N$R$P$SALT$DIGEST with N at least {COST_MIN}, R at least {BLOCK} and 64 MiB at most; "
    "make it with: changeover password USER"
)
