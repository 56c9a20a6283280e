"""Sentences from the catalogue, and values as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.render.texts import TEXTS, UNITS

Plain = Mapping[str, Any]


def say(key: str, /, **words: object) -> str:
    """Return the sentence *key* with *words* in it."""
    return TEXTS[key].format(**words)


def time_text(length_s: float | None) -> str:
    """Return a length of time as people say it: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if length_s is None:
        return say("unknown")
    whole = round(length_s)
    if whole < 120:
        return f"{length_s:.3g} s" if length_s < 10 else f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def value_text(value: object, unit: str = "") -> str:
    """Return a value as people read it; null is unknown."""
    if value is None:
        return say("unknown")
    if isinstance(value, bool):
        return say("true" if value else "false")
    if isinstance(value, int | float):
        if unit == "ratio":
            return f"{value * 100:.4g} %"
        text = f"{value:.6g}"
        return text + UNITS.get(unit, f" {unit}")
    return str(value)


def section(head: str, rows: Iterable[str]) -> list[str]:
    """Return a headed list, nothing when it has no rows."""
    found = [f"  {row}" for row in rows]
    return ["", head, *found] if found else []


def quality_text(quality: str, fault: str | None = None) -> str:
    """Return a remark on a value that is not good."""
    if quality == "suspect":
        return say("hidden", fault=fault) if fault else say("suspect")
    return say("hidden", fault=fault) if quality == "unknown" and fault else ""


def fact_row(fact: Plain) -> str:
    """Return one fact as a row."""
    return say(
        "fact",
        point=fact["point"],
        value=value_text(fact["value"], fact.get("unit") or ""),
        quality=quality_text(fact["quality"]),
        age=say("age", age=time_text(fact["age_s"])) if fact["age_s"] is not None else "",
        source=say("source", source=fact["source"]) if fact["source"] else "",
    )
