"""What the codec knows of declared types: what a type is underneath, and how it is called in an error."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence, Set
from enum import Enum
from typing import Any, Final, Literal, NewType, Union, get_args, get_origin

from agent.errors import ChangeoverError

KIND: Final = "kind"
SCALARS: Final = frozenset({bool, int, str, type(None)})
SEQUENCES: Final = (tuple, list, Sequence, Collection)
SETS: Final = (frozenset, set, Set)
MAPPINGS: Final = (dict, Mapping)
SHOWN_LENGTH: Final = 60
SURROGATE: Final = re.compile("[\ud800-\udfff]")


class PlainError(ChangeoverError, ValueError):
    """Data and type do not agree. `path` says where, outermost first."""

    def __init__(self, reason: str, path: tuple[str, ...] = ()) -> None:
        self.reason = reason
        self.path = path
        super().__init__(f"{'.'.join(path)}: {reason}" if path else reason)

    def inside(self, name: str) -> PlainError:
        """Return the same error as seen from one level further out."""
        return PlainError(self.reason, (name, *self.path))


def bare(type_: Any) -> Any:
    """Return *type_* without the names and marks around it; None as its type."""
    while True:
        if isinstance(type_, NewType):
            type_ = type_.__supertype__
        elif get_origin(type_) is typing.Annotated or get_origin(type_) is Final:
            type_ = get_args(type_)[0]
        else:
            return type(None) if type_ is None else type_


def is_union(type_: Any) -> bool:
    """Say whether *type_* is a union, written either way."""
    return get_origin(type_) in (Union, types.UnionType)


def is_text(type_: Any) -> bool:
    """Say whether values of *type_* are text, and so can be the keys of an object."""
    under = bare(type_)
    return isinstance(under, type) and issubclass(under, str)


def narrowness(type_: Any) -> int:
    """Order in which the members of a union are tried: an enum and a literal before str, int before float."""
    if get_origin(type_) is Literal or (isinstance(type_, type) and issubclass(type_, Enum)):
        return 0
    return 2 if type_ is float else 3 if type_ is Any else 1


def type_name(type_: Any) -> str:
    """Return what an error calls *type_*."""
    return getattr(type_, "__name__", None) or str(type_)


def show(data: Any) -> str:
    """Return *data* as an error shows it, not longer than a line."""
    text = repr(data)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."
