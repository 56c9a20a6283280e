"""
Reads one YAML file that people write: plain values only, every one with its place in the file.

Refused: more than 1 MiB, anything but a regular file, other text than UTF-8, anchors, aliases, tags, merge keys, keys
given twice, nesting over 20 levels, a second document. `true`, `false`, `null`, whole and decimal numbers are read as
YAML 1.2 does; all else is text, so that `no`, `0777`, `1e3` and `22:30` are never guessed at.

The tree is built from the parser's events: no object is ever constructed by the parser, and depth is known before it is
walked.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from agent.errors import ConfigError, Problem

Keys = tuple[str | int, ...]  # the way from the top of the file to a value: keys of mappings, indices of lists

BYTES_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 20
SHOWN_MAX: Final = 60

BOOLEANS: Final = {"true": True, "false": False}
NULLS: Final = frozenset({"", "null", "~"})
WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
DECIMAL: Final = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18})")
PLAIN_KEY: Final = re.compile(r"[\w./-]{1,60}")


class Refused:
    """Stands where a value was refused already, so that it is not complained of twice."""

    def __repr__(self) -> str:
        return "what was refused"


REFUSED: Final = Refused()


@dataclass(frozen=True, slots=True)
class Document:
    """
    What one file says: dicts, lists, text, numbers, booleans and None, or REFUSED where a value was refused.

    `places` gives line and column (from 1) of each value, `key_places` those of each key. `problems`: what was refused.
    """

    source: str
    text: str
    data: Any
    places: Mapping[Keys, tuple[int, int]]
    key_places: Mapping[Keys, tuple[int, int]]
    problems: tuple[Problem, ...]

    def place(self, keys: Keys, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column of the value at *keys* (or of its key), of the nearest one above if there is none."""
        if of_key and keys in self.key_places:
            return self.key_places[keys]
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, (1, 1))

    def problem(self, keys: Keys, message: str, cure: str = "", *, of_key: bool = False) -> Problem:
        """Return a Problem with the value at *keys* (or with its key)."""
        line, column = self.place(keys, of_key=of_key)
        return Problem(line, column, dotted(keys), message, cure)


def dotted(keys: Keys) -> str:
    """Return *keys* as people write a path: `equipment.wan1.targets.hq`, `steps[0].do`."""
    path = ""
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
        else:
            path += ("." if path else "") + (key if PLAIN_KEY.fullmatch(key) else shown(key))
    return path or "(file)"


def shown(value: object) -> str:
    """Return *value* as a message may show it: quoted, without control characters, not long."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 2]}…{text[-1]}"


def read(path: Path) -> Document:
    """
    Return what the file at *path* says.

    Raises:
        ConfigError: it cannot be read, or not as YAML at all. What was refused within it stands in `problems`.
    """
    source = str(path)
    try:
        raw = read_regular(path)
    except OSError as error:
        raise refusal(source, f"cannot be read: {error.strerror or error}") from error
    if len(raw) > BYTES_MAX:
        raise refusal(source, "is larger than 1 MiB", "a site file has some hundred lines")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = line_and_column(raw[: error.start].decode("utf-8-sig", "replace"))
        problem = Problem(line, column, "(file)", "is not UTF-8 text", "save it as UTF-8")
        raise ConfigError(source, (problem,)) from error
    return parse(source, text)


def read_regular(path: Path) -> bytes:
    """Return at most BYTES_MAX + 1 bytes of the regular file at *path*; a link to one will do. Raises OSError."""
    # Asked before it is opened: opening a device can set it going, opening a FIFO waits for its other end.
    refuse_irregular(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        refuse_irregular(os.fstat(descriptor))
        return file.read(BYTES_MAX + 1)


def refuse_irregular(status: os.stat_result) -> None:
    """Raise OSError when *status* is not that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, FIFO or socket"
        raise OSError(0, f"it is {kind}, not a file")


def refusal(source: str, message: str, cure: str = "") -> ConfigError:
    """Return the error for a file that is refused as a whole."""
    return ConfigError(source, (Problem(1, 1, "(file)", message, cure),))


def line_and_column(before: str) -> tuple[int, int]:
    """Return line and column, from 1, of what follows *before*."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def parse(source: str, text: str) -> Document:
    """Return what *text* says; *source* names it in messages. Raises ConfigError where `read` does."""
    builder = Builder(source, text)
    try:
        builder.build()
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
        position = next((i for i, sign in enumerate(text) if ord(sign) == code), 0)
        problem = Problem(*line_and_column(text[:position]), "(file)", f"holds the control character U+{code:04X}")
        raise ConfigError(source, (*builder.problems, problem)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        # libyaml does not say which character it stumbled over; it is nearly always this one.
        stumbled = text.split("\n")[line - 1][column - 1 : column] if line <= text.count("\n") + 1 else ""
        cure = "indent with spaces, not with tabs" if stumbled == "\t" else ""
        message = f"is not YAML: {error.problem or error.context}"
        raise ConfigError(source, (*builder.problems, Problem(line, column, "(file)", message, cure))) from error
    problems = tuple(sorted(builder.problems, key=lambda problem: (problem.line, problem.column)))
    return Document(source, text, builder.root, builder.places, builder.key_places, problems)


class Builder:
    """Builds the tree from the parser's events, and notes what is refused."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self.root: Any = None
        self.places: dict[Keys, tuple[int, int]] = {}
        self.key_places: dict[Keys, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        # libyaml's parser is ten times faster; PyYAML may have been built without it.
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    def build(self) -> None:
        """Read the one document. Raises yaml.YAMLError, or ConfigError where reading on would be of no use."""
        documents = 0
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            documents += 1
            if documents > 1:
                self._stop(event, "a second document begins here", "one file is one document: take out the ---")
            self.root = self._value(next(self._events), (), 0)

    def _value(self, event: Any, keys: Keys, depth: int) -> Any:
        self.places[keys] = place(event)
        if isinstance(event, yaml.AliasEvent):
            self._note(event, keys, f"alias *{event.anchor} is not allowed", "write the value out")
            return REFUSED
        if event.anchor is not None:
            self._note(event, keys, f"anchor &{event.anchor} is not allowed", "write the value out where it is needed")
        if event.tag is not None:
            self._note(event, keys, f"tag {event.tag} is not allowed", "write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            is_plain = event.tag is None and not event.style
            return scalar(event.value) if is_plain else event.value
        if depth >= DEPTH_MAX:
            self._stop(event, f"lies more than {DEPTH_MAX} levels deep")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(keys, depth)
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*keys, len(values)), depth + 1))
        return values

    def _mapping(self, keys: Keys, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, keys, values)
            following = next(self._events) if not isinstance(event, yaml.CollectionStartEvent) else self._after(event)
            if key is None:
                self._skip(following, depth + 1)
            else:
                values[key] = self._value(following, (*keys, key), depth + 1)
        return values

    def _key(self, event: Any, keys: Keys, values: Mapping[str, Any]) -> str | None:
        """Return the key at *event*, None when it is refused."""
        if not isinstance(event, yaml.ScalarEvent):
            self._note(event, keys, "a key must be plain text")
            return None
        key = str(event.value)
        path = (*keys, key)
        if event.anchor is not None or event.tag is not None:
            self._note(event, path, "a key may have no anchor and no tag")
        if key == "<<" and not event.style:
            self._note(event, keys, "merge key << is not allowed", "write the keys out")
            return None
        if key in values:
            self._note(event, path, f"is given twice, first in line {self.key_places[path][0]}", "keep one of the two")
            return None
        self.key_places[path] = place(event)
        return key

    def _after(self, event: Any) -> Any:
        """Pass over the collection that begins with *event*; return the event behind it."""
        self._skip(event, 0)
        return next(self._events)

    def _skip(self, event: Any, depth: int) -> None:
        """Pass over the value that begins with *event*."""
        open_collections = 0
        while True:
            if isinstance(event, yaml.CollectionStartEvent):
                open_collections += 1
                if depth + open_collections > DEPTH_MAX:
                    self._stop(event, f"lies more than {DEPTH_MAX} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                open_collections -= 1
            if not open_collections:
                return
            event = next(self._events)

    def _note(self, event: Any, keys: Keys, message: str, cure: str = "") -> None:
        self.problems.append(Problem(*place(event), dotted(keys), message, cure))

    def _stop(self, event: Any, message: str, cure: str = "") -> NoReturn:
        raise ConfigError(self.source, (*self.problems, Problem(*place(event), "(file)", message, cure)))


def place(event: Any) -> tuple[int, int]:
    """Return line and column, from 1, where *event* begins."""
    return event.start_mark.line + 1, event.start_mark.column + 1


def scalar(text: str) -> Any:
    """Return what the plain (unquoted) *text* stands for."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if DECIMAL.fullmatch(text) else text
