"""
Turns frozen dataclasses into plain JSON data and back, and plain data into one canonical text.

A dataclass becomes an object of its fields. Where a reader could not tell which class it was (a union of dataclasses,
or the outermost value) the class name stands beside them under "kind". Keys that the reader does not know are
ignored: a newer version wrote them. Plans are made once per type and kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from agent.runtime.codec_types import (
    KIND,
    MAPPINGS,
    SCALARS,
    SEQUENCES,
    SETS,
    SURROGATE,
    PlainError,
    bare,
    is_text,
    is_union,
    narrowness,
    show,
    type_name,
)

__all__ = ["PlainError", "canonical", "digest", "from_plain", "to_plain"]

T = TypeVar("T")
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]


def to_plain(value: Any) -> Any:
    """
    Return *value* as dicts, lists and scalars. A dataclass carries its class name under "kind" (unless it has a field
    of that name); fields declared `float` are floats, also where an int was given, so that a text is always the same.

    Raises:
        PlainError: a field declared `float` is not a number.
        TypeError: a type that has no plain form.
    """
    cls = type(value)
    if cls in SCALARS or cls is float:
        return value
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(cls):
        return class_plan(cls).encode_tagged(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(one) for one in value]
    if isinstance(value, frozenset | set):
        return sorted((to_plain(one) for one in value), key=canonical)
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{cls.__qualname__} has no plain form")


def from_plain(type_: type[T] | Any, data: Any) -> T | Any:
    """
    Return the value of *type_* that *data* stands for. Unknown keys are ignored, missing ones take the default.

    Raises:
        PlainError: *data* does not fit; says where and why.
        TypeError: a type that has no plain form.
    """
    return decoder(type_)(data)


def canonical(value: Any) -> str:
    """
    Return *value* (plain or not) as JSON: keys sorted, no spaces, not escaped to ASCII, floats by repr.

    Raises:
        PlainError: a number in it is not finite.
    """
    try:
        text = ENCODER.encode(value)
    except ValueError as error:
        raise PlainError(f"cannot be stored: {error}") from error
    if text.isascii():
        return text
    # Half a character has no UTF-8; it comes from devices whose bytes were decoded with surrogates.
    return SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


def digest(text: str, previous: str) -> str:
    """Return the SHA-256 over *previous* and *text* as 64 hexadecimal digits."""
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=to_plain
)


# ---------------------------------------------------------------- dataclasses


class ClassPlan:
    """How one dataclass is written and read. Made in two steps, so that a class may contain itself."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        self.name = cls.__name__
        self.fields: tuple[Field[Any], ...] = tuple(one for one in fields(cls) if one.init)
        self.has_kind = any(one.name == KIND for one in self.fields)
        self.writers: tuple[tuple[str, Encode | None], ...] | None = None
        self.readers: tuple[tuple[str, Decode, bool], ...] | None = None

    def encode(self, value: Any) -> dict[str, Any]:
        if type(value) is not self.cls:
            raise TypeError(f"a {self.name} was declared, a {type(value).__name__} was given")
        plain = {}
        for name, encode in self.writers or self._plan_writers():
            one = getattr(value, name)
            try:
                plain[name] = one if encode is None else encode(one)
            except PlainError as error:
                raise error.inside(name) from error
        return plain

    def encode_tagged(self, value: Any) -> dict[str, Any]:
        plain = self.encode(value)
        if not self.has_kind:
            plain[KIND] = self.name
        return plain

    def decode(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise PlainError(f"{self.name} wanted, got {show(data)}")
        values = {}
        for name, decode, is_needed in self.readers or self._plan_readers():
            if name in data:
                try:
                    values[name] = decode(data[name])
                except PlainError as error:
                    raise error.inside(name) from error
            elif is_needed:
                raise PlainError(f"missing in {self.name}", (name,))
        return self.cls(**values)

    def _plan_writers(self) -> tuple[tuple[str, Encode | None], ...]:
        hints = self._hints()
        self.writers = tuple((one.name, encoder(hints[one.name])) for one in self.fields)
        return self.writers

    def _plan_readers(self) -> tuple[tuple[str, Decode, bool], ...]:
        hints = self._hints()
        self.readers = tuple(
            (one.name, decoder(hints[one.name]), one.default is MISSING and one.default_factory is MISSING)
            for one in self.fields
        )
        return self.readers

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.cls)
        except NameError as error:
            raise TypeError(f"{self.name}: a field's type cannot be found: {error}") from error


PLANS: dict[type[Any], ClassPlan] = {}
ENCODERS: dict[Any, Encode | None] = {}
DECODERS: dict[Any, Decode] = {}


def class_plan(cls: type[Any]) -> ClassPlan:
    """Return the plan of dataclass *cls*."""
    plan = PLANS.get(cls)
    if plan is None:
        plan = PLANS[cls] = ClassPlan(cls)
    return plan


# ---------------------------------------------------------------- writing


def encoder(type_: Any) -> Encode | None:
    """Return what turns a value declared *type_* into plain data, None where it is plain already."""
    if type_ not in ENCODERS:
        ENCODERS[type_] = _make_encoder(type_)
    return ENCODERS[type_]


def _make_encoder(type_: Any) -> Encode | None:
    type_ = bare(type_)
    if type_ is None or type_ in SCALARS or get_origin(type_) is Literal:
        return None
    if type_ is float:
        return _encode_float
    if type_ is Any or type_ is object:
        return to_plain
    if isinstance(type_, type) and issubclass(type_, Enum):
        return _encode_enum
    if is_dataclass(type_):
        return class_plan(typing.cast(type, type_)).encode
    if is_union(type_):
        return _union_encoder(get_args(type_))
    return _container_encoder(type_)


def _container_encoder(type_: Any) -> Encode:
    origin, arguments = get_origin(type_) or type_, get_args(type_) or (Any, ...)
    if origin is tuple and arguments[-1] is not ...:
        parts = [encoder(one) or _as_it_is for one in arguments]
        return lambda value: [encode(one) for encode, one in zip(parts, value, strict=True)]
    if origin in SEQUENCES:
        element = encoder(arguments[0])
        return list if element is None else lambda value: [element(one) for one in value]
    if origin in SETS:
        member = encoder(arguments[0]) or _as_it_is
        return lambda value: sorted((member(one) for one in value), key=canonical)
    if origin in MAPPINGS:
        return _mapping_encoder(*(get_args(type_) or (str, Any)))
    raise TypeError(f"{type_} has no plain form")


def _mapping_encoder(key_type: Any, value_type: Any) -> Encode:
    encode = encoder(value_type) or _as_it_is
    if is_text(key_type):
        return lambda value: {str(key): encode(one) for key, one in value.items()}
    # Keys that are no text make a list of pairs, in an order that does not depend on how the mapping was filled.
    encode_key = encoder(key_type) or _as_it_is
    return lambda value: sorted(
        ([encode_key(key), encode(one)] for key, one in value.items()), key=lambda pair: canonical(pair[0])
    )


def _union_encoder(members: tuple[Any, ...]) -> Encode | None:
    kinds = [bare(one) for one in members]
    classes = _tagged_classes(kinds)
    if all(one in SCALARS or one is float or get_origin(one) is Literal for one in kinds):
        # Beside int and str a float is told apart by how it is written, so it stays as it is.
        return _encode_float_or_none if set(kinds) == {float, type(None)} else None
    containers = [(one, encoder(one)) for one in kinds if get_origin(one) is not None or one in (*SEQUENCES, *MAPPINGS)]

    def encode(value: Any) -> Any:
        cls = type(value)
        if cls in SCALARS or cls is float:
            return value
        if cls in classes:
            return class_plan(cls).encode_tagged(value) if len(classes) > 1 else class_plan(cls).encode(value)
        if isinstance(value, Enum):
            return value.value
        for one, encode_one in containers:
            if encode_one is not None and isinstance(value, get_origin(one) or one):
                return encode_one(value)
        raise TypeError(f"{cls.__name__} is none of {', '.join(type_name(one) for one in kinds)}")

    return encode


def _encode_float(value: Any) -> Any:
    number = float(value)
    if number - number == 0.0:
        return number
    if math.isnan(number):
        raise PlainError("is not a number")
    return "inf" if number > 0 else "-inf"


def _encode_float_or_none(value: Any) -> Any:
    return None if value is None else _encode_float(value)


def _encode_enum(value: Any) -> Any:
    return value.value


def _as_it_is(value: Any) -> Any:
    return value


# ---------------------------------------------------------------- reading


def decoder(type_: Any) -> Decode:
    """Return what turns plain data into a value of *type_*."""
    if type_ not in DECODERS:
        DECODERS[type_] = _make_decoder(type_)
    return DECODERS[type_]


def _make_decoder(type_: Any) -> Decode:
    type_ = bare(type_)
    if type_ is Any or type_ is object:
        return _as_it_is
    if type_ is None or type_ in SCALARS:
        return _exactly(type_ or type(None))
    if type_ is float:
        return _decode_float
    if get_origin(type_) is Literal:
        return _one_of(get_args(type_))
    if isinstance(type_, type) and issubclass(type_, Enum):
        return _enum_decoder(type_)
    if is_dataclass(type_):
        return class_plan(typing.cast(type, type_)).decode
    if is_union(type_):
        return _union_decoder(get_args(type_))
    return _container_decoder(type_)


def _container_decoder(type_: Any) -> Decode:
    origin, arguments = get_origin(type_) or type_, get_args(type_) or (Any, ...)
    if origin is tuple and arguments[-1] is not ...:
        return _row_decoder([decoder(one) for one in arguments])
    if origin in SEQUENCES:
        return _list_decoder(decoder(arguments[0]), list if origin is list else tuple)
    if origin in SETS:
        return _list_decoder(decoder(arguments[0]), set if origin is set else frozenset)
    if origin in MAPPINGS:
        return _mapping_decoder(*(get_args(type_) or (str, Any)))
    raise TypeError(f"{type_} has no plain form")


def _row_decoder(parts: list[Decode]) -> Decode:
    def decode(data: Any) -> Any:
        if not isinstance(data, list) or len(data) != len(parts):
            raise PlainError(f"a list of {len(parts)} wanted, got {show(data)}")
        return tuple(_at(str(place), part, one) for place, (part, one) in enumerate(zip(parts, data, strict=True)))

    return decode


def _list_decoder(element: Decode, make: Callable[[list[Any]], Any]) -> Decode:
    def decode(data: Any) -> Any:
        if not isinstance(data, list):
            raise PlainError(f"a list wanted, got {show(data)}")
        return make([_at(str(place), element, one) for place, one in enumerate(data)])

    return decode


def _mapping_decoder(key_type: Any, value_type: Any) -> Decode:
    decode_key, decode_value = decoder(key_type), decoder(value_type)

    def decode(data: Any) -> Any:
        if not isinstance(data, dict):
            raise PlainError(f"an object wanted, got {show(data)}")
        return {decode_key(key): _at(key, decode_value, one) for key, one in data.items()}

    def decode_pairs(data: Any) -> Any:
        if not isinstance(data, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in data):
            raise PlainError(f"a list of pairs wanted, got {show(data)}")
        return {decode_key(key): decode_value(one) for key, one in data}

    return decode if is_text(key_type) else decode_pairs


def _union_decoder(members: tuple[Any, ...]) -> Decode:
    kinds = [bare(one) for one in members]
    classes = {cls.__name__: cls for cls in _tagged_classes(kinds)}
    others = [decoder(one) for one in sorted(kinds, key=narrowness) if one not in classes.values()]
    names = ", ".join(type_name(one) for one in kinds)
    as_they_are = {one for one in kinds if one in SCALARS or one is float}
    if any(narrowness(one) == 0 for one in kinds):
        as_they_are.discard(str)

    def decode(data: Any) -> Any:
        if type(data) in as_they_are:
            return data
        if isinstance(data, dict) and classes:
            if len(classes) == 1:
                return class_plan(next(iter(classes.values()))).decode(data)
            cls = classes.get(data.get(KIND, ""))
            if cls is None:
                raise PlainError(f"kind {show(data.get(KIND))} is none of {names}")
            return class_plan(cls).decode(data)
        for decode_one in others:
            try:
                return decode_one(data)
            except PlainError as error:
                if error.path:  # the shape fits, a part of it does not: that is the error worth telling
                    raise
        raise PlainError(f"one of {names} wanted, got {show(data)}")

    return decode


def _at(name: str, decode: Decode, data: Any) -> Any:
    try:
        return decode(data)
    except PlainError as error:
        raise error.inside(name) from error


def _exactly(type_: type[Any]) -> Decode:
    def decode(data: Any) -> Any:
        if type(data) is not type_:
            raise PlainError(f"{type_name(type_)} wanted, got {show(data)}")
        return data

    return decode


def _decode_float(data: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is int or data in ("inf", "-inf"):
        return float(data)
    raise PlainError(f"a number wanted, got {show(data)}")


def _one_of(allowed: tuple[Any, ...]) -> Decode:
    def decode(data: Any) -> Any:
        if not any(data == one and type(data) is type(one) for one in allowed):
            raise PlainError(f"one of {', '.join(map(repr, allowed))} wanted, got {show(data)}")
        return data

    return decode


def _enum_decoder(type_: type[Enum]) -> Decode:
    members = {one.value: one for one in type_}

    def decode(data: Any) -> Any:
        try:
            return members[data]
        except (KeyError, TypeError) as error:
            raise PlainError(f"{type_.__name__} knows no {show(data)}") from error

    return decode


def _tagged_classes(members: list[Any]) -> set[type[Any]]:
    classes: set[type[Any]] = {one for one in members if isinstance(one, type) and is_dataclass(one)}
    if len(classes) > 1 and len({cls.__name__ for cls in classes}) < len(classes):
        raise TypeError(f"two classes of one name in a union: {sorted(cls.__name__ for cls in classes)}")
    for cls in classes if len(classes) > 1 else ():
        if class_plan(cls).has_kind:
            raise TypeError(f"{cls.__name__} stands in a union of classes and may have no field named {KIND!r}")
    if classes and any((get_origin(one) or one) in MAPPINGS for one in members):
        raise TypeError("a union of a class and a mapping cannot be told apart when read")
    return classes
