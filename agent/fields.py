"""
Turns values of the site file into what they mean, and notes each mistake with its place and its cure.

A plug-in brings its keys as a frozen dataclass; `record` fills it. The key of a length of time (`period_s: float`) has
no unit in the file (`period: 10s`), nor has the key of a ratio (`loss_ratio: float`, `loss: 25%`): the value has it.

Every function here returns None after a mistake that it has noted; nothing raises.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeVar

from agent.errors import Problem
from agent.yaml_source import REFUSED, Document, Keys, shown

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

DURATION: Final = re.compile(r"(-?)([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION_MAX_S: Final = 366 * 86_400.0
DURATION_CURE: Final = "write a number with its unit: 500ms, 10s, 5m, 2h or 7d"
PERCENT: Final = re.compile(r"(-?[0-9]{1,6}(?:\.[0-9]{1,6})?) ?%")
RATE: Final = re.compile(r"([1-9][0-9]{0,5})\s*/\s*(\S+)")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
NOT_A_NAME: Final = "must be a name of letters, digits, - and _, at most 40"
COMPARED_MAX: Final = 1000  # known words that a wrong one is compared with
LISTED_MAX: Final = 40
SUGGESTIONS_MAX: Final = 100  # mistakes in one file that are worth looking for what was meant
TEXT_MAX: Final = 200
PORT_MAX: Final = 65_535
UNIT_SUFFIXES: Final = ("_s", "_ratio")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many times in `per_s` seconds; `count` None is without limit."""

    count: int | None
    per_s: float


@dataclass(slots=True)
class Notes:
    """The mistakes found so far in one document."""

    document: Document
    problems: list[Problem] = field(default_factory=list)

    def in_order(self) -> tuple[Problem, ...]:
        """Return every mistake once, in file order, with those of the document itself."""
        found = dict.fromkeys((*self.document.problems, *self.problems))
        return tuple(sorted(found, key=lambda problem: (problem.line, problem.column)))


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the site file: where it stands and what stands there."""

    notes: Notes
    keys: Keys
    value: Any

    def wrong(self, message: str, cure: str = "", *, key: bool = False) -> None:
        """Note a mistake at this value, or at its key."""
        self.notes.problems.append(self.notes.document.problem(self.keys, message, cure, of_key=key))

    def child(self, key: str | int, value: Any) -> Node:
        """Return the value *value* that stands under *key*."""
        return Node(self.notes, (*self.keys, key), value)

    def get(self, key: str) -> Node | None:
        """Return the value under *key* of this mapping, None when the key is absent or was refused."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return None if value is REFUSED or (value is None and not self.has(key)) else self.child(key, value)

    def has(self, key: str) -> bool:
        """Tell whether *key* stands in this mapping, refused or not."""
        return isinstance(self.value, dict) and key in self.value

    def children(self) -> Iterator[tuple[str, Node]]:
        """Give key and value of each entry of this mapping that was not refused."""
        for key, value in self.value.items():
            if value is not REFUSED:
                yield key, self.child(key, value)


# ---------------------------------------------------------------- shapes


def mapping(node: Node, known: Collection[str] | None = None, *, what: str = "a mapping") -> bool:
    """Tell whether *node* is a mapping; note each key that is not among *known*. `key:` alone is an empty one."""
    if node.value is REFUSED:
        return False
    if not isinstance(node.value, dict):
        node.wrong(f"must be {what}, got {shown(node.value)}")
        return False
    for key, child in node.children():
        if known is not None and key not in known:
            is_much = len(node.notes.problems) > SUGGESTIONS_MAX
            child.wrong("unknown key", "" if is_much else did_you_mean(key, known), key=True)
    return True


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the cure for an unknown *word*: the nearest of *known*, or all of them."""
    near = near_only(word, known)
    if near or not known:
        return near or "nothing may stand here"
    more = ", …" if len(known) > LISTED_MAX else ""
    return f"known here: {', '.join(sorted(known)[:LISTED_MAX])}{more}"


def one_or_more(node: Node | None, read: Callable[[Node], T | None]) -> tuple[T, ...]:
    """Return the values of a list, or of one value that stands without a list."""
    if node is None or node.value is None:
        return ()
    entries = [node.child(i, v) for i, v in enumerate(node.value)] if isinstance(node.value, list) else [node]
    values = [read(entry) for entry in entries if entry.value is not REFUSED]
    return tuple(value for value in values if value is not None)


def optional(node: Node | None, read: Callable[[Node], T | None], default: T) -> T:
    """Return what *read* makes of *node*, *default* when it is absent (or wrong, which is noted)."""
    if node is None:
        return default
    value = read(node)
    return default if value is None else value


# ---------------------------------------------------------------- single values


def text(node: Node) -> str | None:
    """Return a line of text. A number or a boolean is a mistake: quotes make it text."""
    value = node.value
    if not isinstance(value, str):
        cure = 'put it in quotes: "…"' if isinstance(value, bool | int | float) else ""
        node.wrong(f"must be text, got {shown(value)}", cure)
    elif not value.strip():
        node.wrong("is empty")
    elif len(value) > TEXT_MAX or not value.isprintable():
        node.wrong(f"must be one line of at most {TEXT_MAX} characters, got {shown(value)}")
    else:
        return value
    return None


def name(node: Node) -> str | None:
    """Return a name: up to 40 letters, digits, - and _; it becomes part of the names of points and metrics."""
    if isinstance(node.value, str) and NAME.fullmatch(node.value):
        return node.value
    if isinstance(node.value, int) and not isinstance(node.value, bool) and node.value >= 0:
        return str(node.value)
    node.wrong(f"{NOT_A_NAME}, got {shown(node.value)}")
    return None


def is_name(node: Node, key: str) -> bool:
    """Tell whether *key*, under which *node* stands, is a name."""
    if not NAME.fullmatch(key):
        node.wrong(NOT_A_NAME, key=True)
    return NAME.fullmatch(key) is not None


def choice(node: Node, words: Collection[str]) -> str | None:
    """Return one of *words*."""
    if isinstance(node.value, str) and node.value in words:
        return node.value
    node.wrong(f"must be one of {', '.join(words)}, got {shown(node.value)}", near_only(node.value, words))
    return None


def enum_of(node: Node, kind: type[E]) -> E | None:
    """Return the member of *kind* that is named."""
    word = choice(node, [str(member) for member in kind])
    return None if word is None else kind(word)


def near_only(word: object, known: Collection[str]) -> str:
    """Return "did you mean" when something is near, else nothing."""
    words = islice(known, COMPARED_MAX)
    near = difflib.get_close_matches(word[:TEXT_MAX], words, 1, 0.6) if isinstance(word, str) else []
    return f"did you mean {near[0]}?" if near else ""


def boolean(node: Node) -> bool | None:
    """Return true or false; `yes`, `on` and their like are text and a mistake."""
    if isinstance(node.value, bool):
        return node.value
    node.wrong(f"must be true or false, got {shown(node.value)}")
    return None


def whole(node: Node) -> int | None:
    """Return a whole number."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    is_quoted = isinstance(node.value, str) and node.value.isdigit()
    node.wrong(f"must be a whole number, got {shown(node.value)}", "no quotes, no leading zero" if is_quoted else "")
    return None


def number(node: Node) -> float | None:
    """Return a number without unit."""
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    node.wrong(f"must be a number, got {shown(node.value)}")
    return None


def seconds(node: Node) -> float | None:
    """Return a length of time in seconds, zero to a year. Only 0 may stand without unit."""
    value = node.value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        message = f"{value} has no unit" if is_number else f"must be a length of time, got {shown(value)}"
        node.wrong(message, DURATION_CURE)
        return None
    length_s = float(found[2]) * UNIT_S[found[3]]
    if found[1] and length_s:
        node.wrong(f"must not be below zero, got {value}")
    elif length_s > DURATION_MAX_S:
        node.wrong(f"must be at most 366d, got {value}")
    else:
        return length_s
    return None


def ratio(node: Node, most: float = 1.0) -> float | None:
    """Return a ratio from 0 to *most*, written 25% or 0.25."""
    value = node.value
    found = PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        share = float(found[1]) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool):
        share = float(value)
    else:
        node.wrong(f"must be a ratio, got {shown(value)}", "write 25% or 0.25")
        return None
    if 0 <= share <= most:
        return share
    node.wrong(
        f"must lie between 0% and {most:.0%}, got {value}",
        f"did you mean {value}%?" if 1 < share <= 100 and not found else "",
    )
    return None


def rate(node: Node) -> Rate | None:
    """Return a rate such as 2/1h, or that of `none`: without limit."""
    if node.value == "none":
        return Rate(None, 0.0)
    found = RATE.fullmatch(node.value) if isinstance(node.value, str) else None
    per = DURATION.fullmatch(found[2]) if found is not None else None
    if found is None or per is None or per[1] or not 0 < float(per[2]) * UNIT_S[per[3]] <= DURATION_MAX_S:
        node.wrong(f"must be a count in a time, got {shown(node.value)}", "write it as 2/1h, or none for no limit")
        return None
    return Rate(int(found[1]), float(per[2]) * UNIT_S[per[3]])


def address(node: Node) -> str | None:
    """Return an IPv4 address. Names are refused: what must work when all else fails asks no name server."""
    try:
        if isinstance(node.value, str):
            return str(ipaddress.IPv4Address(node.value))
    except ValueError:
        pass
    node.wrong(f"must be an IPv4 address, got {shown(node.value)}", "names are not looked up")
    return None


def host_port(node: Node) -> tuple[str, int] | None:
    """Return address and port of `192.0.2.1:443`; port 0 stands for any free one."""
    host, colon, port = node.value.rpartition(":") if isinstance(node.value, str) else ("", "", "")
    try:
        if colon and port.isascii() and port.isdigit() and int(port) <= PORT_MAX:
            return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        pass
    node.wrong(f"must be address:port, got {shown(node.value)}", 'write it as "192.0.2.1:443"')
    return None


# ---------------------------------------------------------------- records


def record(node: Node, cls: type[T], *, beside: Collection[str] = ()) -> T | None:
    """
    Return a *cls* (a frozen dataclass) filled from the mapping *node*. Keys named in *beside* belong to somebody else.

    A ValueError of its own checks is noted; where its text begins with `field:` it stands at that field.
    """
    keys = {file_key(entry.name): entry for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not mapping(node, {*keys, *beside}):
        return None
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    is_whole = True
    for key, entry in keys.items():
        child = node.get(key)
        if child is not None:
            before = len(node.notes.problems)
            value = of_type(child, hints[entry.name], entry.name)
            is_right = len(node.notes.problems) == before
            is_whole = is_whole and is_right
            if is_right or value:  # of a list or mapping, what is right in it
                values[entry.name] = value
        elif node.has(key):
            is_whole = False
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            node.wrong(f"{key} is missing", f"add {key}: …", key=True)
            is_whole = False
    return construct(node, cls, values, is_whole=is_whole)


def construct(node: Node, cls: type[T], values: dict[str, Any], *, is_whole: bool) -> T | None:
    """
    Return `cls(**values)`, None after its own checks have refused a value; all that they refuse is noted.

    *is_whole* False: something is missing or wrong already, and only the checks on the rest are of interest.
    """
    refused = not is_whole
    while True:
        try:
            made = cls(**values)
        except ValueError as error:
            # Its checks stop at the first mistake: what it named is left out, and the rest tried again. A complaint of
            # a key that does not stand in the file is news only if nothing was left out before.
            at, keys, message = culprit(node, str(error), values)
            if not refused or keys:
                at.wrong(message, key=not keys or at.value is None)
            refused = True
            if not keys or not without(values, keys):
                return None
        except TypeError:  # what was left out is needed
            return None
        else:
            return None if refused else made


def culprit(node: Node, message: str, values: Mapping[str, Any]) -> tuple[Node, tuple[str, ...], str]:
    """Return the value that a record's own *message* complains of, its field and entry, and the rest of the message."""
    keys: tuple[str, ...] = ()
    word, colon, rest = message.partition(":")
    child = node.get(file_key(word))
    if not colon or child is None or word not in values:
        return node, (), message
    node, keys, message = child, (word,), rest.strip()
    for entry, child in node.children() if isinstance(node.value, dict) else ():
        if message.startswith(f"{entry}:"):
            return child, (word, entry), message.removeprefix(f"{entry}:").strip()
        if repr(entry) in message:
            return child, (word, entry), message
    return node, keys, message + (" (in seconds)" if word.endswith("_s") else "")


def without(values: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """Leave the value at *keys* out of *values*; tell whether it was there."""
    field_name, entry = keys[0], keys[1:]
    if not entry:
        return values.pop(field_name, REFUSED) is not REFUSED
    left = {key: value for key, value in values[field_name].items() if key != entry[0]}
    values[field_name] = left
    return bool(left)


def file_key(field_name: str) -> str:
    """Return how the field is called in the file: `period_s` is `period`, as its value carries the unit."""
    for suffix in UNIT_SUFFIXES:
        field_name = field_name.removesuffix(suffix)
    return field_name


def of_type(node: Node, hint: Any, field_name: str) -> Any:
    """Return what *node* means as the type *hint*, None after a mistake (or where None is meant)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        if len(kinds) > 1:
            return plain(node)
        is_absent = node.value is None and len(kinds) < len(arguments)
        return None if is_absent else of_type(node, kinds[0], field_name)
    if node.value is None:
        node.wrong("nothing stands here", "give a value, or leave the key out to have the default")
        return None
    if origin is tuple:
        return items(node, arguments[0], field_name)
    if origin is typing.Literal:
        return choice(node, [str(argument) for argument in arguments])
    if origin is not None and issubclass(origin, Mapping):
        return entries(node, arguments[1], field_name)
    if dataclasses.is_dataclass(hint):
        return record(node, typing.cast(type[Any], hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return enum_of(node, hint)
    if hint is float:
        return (seconds if field_name.endswith("_s") else ratio if field_name.endswith("_ratio") else number)(node)
    return READERS[hint](node)


def plain(node: Node) -> Any:
    """Return any single value."""
    if isinstance(node.value, dict | list):
        node.wrong(f"must be a single value, got {shown(node.value)}")
        return None
    return node.value


def items(node: Node, hint: Any, field_name: str) -> tuple[Any, ...]:
    """Return the values of a list, without those that are wrong."""
    return one_or_more(node, lambda entry: of_type(entry, hint, field_name))


def entries(node: Node, hint: Any, field_name: str) -> dict[str, Any]:
    """Return the entries of a mapping, without those that are wrong."""
    found: dict[str, Any] = {}
    for key, child in node.children() if mapping(node) else ():
        before = len(node.notes.problems)
        value = of_type(child, hint, field_name)
        if len(node.notes.problems) == before:
            found[key] = value
    return found


READERS: Final[Mapping[Any, Callable[[Node], Any]]] = {str: text, int: whole, bool: boolean}
