"""
Reads runbook scripts: YAML for order and parameters, without any name of the site's equipment.

A script is checked as far as it can be without a site: its keys, its verbs and their words. `agent.binding` joins it to
the equipment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from agent.core.runbook import Failback, IfDenied, Limits, OnReturn
from agent.errors import ConfigError, Problem
from agent.fields import (
    Node,
    Notes,
    Rate,
    boolean,
    did_you_mean,
    enum_of,
    mapping,
    name,
    one_or_more,
    optional,
    rate,
    record,
    seconds,
    text,
    whole,
)
from agent.ports import ActionKind
from agent.yaml_source import Document, read

LIBRARY_PACKAGE: Final = "runbooks"
SCRIPT_KEYS: Final = ("runbook", "title", "starts_on", "steps", "limits", "on_return", "failback")
STEP_KEYS: Final = ("title", "do", "verify", "if_denied", "point_of_no_return")
DEFAULT_LIMITS: Final = Limits(2, 3600.0, 0.0)  # two swaps in an hour, then locked until reset; quiet for no time
PER_DAY: Final = 2
WITHIN_S: Final = 10.0
CAUSES: Final = ("line",)


@dataclass(frozen=True, slots=True)
class Title:
    """One title in both languages; where one is missing the other stands in."""

    en: str = ""
    zh: str = ""


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """One step before binding. `params` is the verb's own dataclass."""

    node: Node
    title: Title
    action: ActionKind
    params: Any
    verify: tuple[str, ...]
    within_s: float
    if_denied: IfDenied
    point_of_no_return: bool


@dataclass(frozen=True, slots=True)
class Return:
    """The way home as the script has it. `good_for_s` None: as the profile of the line says."""

    title: Title
    steps: tuple[ScriptStep, ...]
    automatic: bool
    good_for_s: float | None
    per_day: int

    def failback(self, usual_s: float) -> Failback:
        """Return what the core needs of it; *usual_s* where no time is given."""
        return Failback(self.automatic, usual_s if self.good_for_s is None else self.good_for_s, self.per_day)


@dataclass(frozen=True, slots=True)
class Script:
    """One script."""

    document: Document
    title: Title
    cause: str
    role: str
    steps: tuple[ScriptStep, ...]
    limits: Limits
    on_return: OnReturn
    way_home: Return | None


def library() -> Mapping[str, Path]:
    """Return the scripts that come with the program, by name."""
    folder = Path(str(files(LIBRARY_PACKAGE))) / "library"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(node: Node, beside: Path) -> Path | None:
    """Return the script that *node* names: one of the library, or a file from the folder *beside*."""
    word = text(node)
    if word is None:
        return None
    if "/" in word or word.endswith((".yaml", ".yml")):
        return beside / word
    known = library()
    if word not in known:
        cure = f"{did_you_mean(word, known)} (a file of your own is named by its path: ./{word}.yaml)"
        node.wrong("there is no script of this name in the library", cure)
    return known.get(word)


def load(path: Path, used: Node, actions: Mapping[str, ActionKind]) -> Script | None:
    """Return the script at *path*. Its mistakes are noted at *used*, the place in the site file that names it."""
    try:
        document = read(path)
    except ConfigError as error:
        complain(used, path, error.problems)
        return None
    notes = Notes(document)
    script = read_script(Node(notes, (), document.data), actions)
    complain(used, path, notes.in_order())
    return None if notes.in_order() else script


def complain(used: Node, path: Path, problems: tuple[Problem, ...]) -> None:
    """Note the *problems* of the script at *path* where the site file names it."""
    for problem in problems:
        used.wrong(f"{path.name}:{problem.line}:{problem.column}: {problem.path}: {problem.message}", problem.cure)


def read_script(node: Node, actions: Mapping[str, ActionKind]) -> Script | None:
    """Return the script in *node*, None after a mistake."""
    if not mapping(node, SCRIPT_KEYS, what="a script: a mapping"):
        return None
    require(node, "runbook", "starts_on", "steps")
    optional(node.get("runbook"), name, "")
    starts_on = node.get("starts_on")
    cause, role = read_start(starts_on) if starts_on is not None else ("", "")
    return Script(
        document=node.notes.document,
        title=read_title(node.get("title")),
        cause=cause,
        role=role,
        steps=read_steps(node.get("steps"), actions),
        limits=read_limits(node.get("limits"), DEFAULT_LIMITS),
        on_return=optional(node.get("on_return"), lambda n: enum_of(n, OnReturn), OnReturn.UNDO),
        way_home=read_return(node.get("failback"), actions),
    )


def require(node: Node, *keys: str) -> None:
    """Note each of *keys* that *node* does not have."""
    for key in keys:
        if not node.has(key):
            node.wrong(f"{key} is missing", f"add {key}: …", key=True)


def read_start(node: Node) -> tuple[str, str]:
    """Return cause and role that start the script."""
    if not mapping(node, ("cause", "role")):
        return "", ""
    require(node, "cause", "role")
    cause = optional(node.get("cause"), text, "")
    if cause and cause not in CAUSES:
        node.child("cause", cause).wrong(f"cause {cause} is not yet supported by this version", f"known: {CAUSES[0]}")
    return cause, optional(node.get("role"), name, "")


def read_title(node: Node | None) -> Title:
    """Return a title in both languages, or one for both."""
    if node is None or node.value is None:
        return Title()
    if isinstance(node.value, str):
        return Title(node.value, node.value)
    if not mapping(node, ("en", "zh"), what="text, or {en: …, zh: …}"):
        return Title()
    en, zh = optional(node.get("en"), text, ""), optional(node.get("zh"), text, "")
    return Title(en or zh, zh or en)


def read_steps(node: Node | None, actions: Mapping[str, ActionKind]) -> tuple[ScriptStep, ...]:
    """Return the steps in order."""
    if node is None:
        return ()
    if not isinstance(node.value, list) or not node.value:
        node.wrong("must be a list of at least one step")
        return ()
    return one_or_more(node, lambda step: read_step(step, actions))


def read_step(node: Node, actions: Mapping[str, ActionKind]) -> ScriptStep | None:
    """Return one step, None after a mistake in its verb."""
    if not mapping(node, STEP_KEYS, what="a step: a mapping with do and verify"):
        return None
    require(node, "do", "verify")
    verify, within_s = read_verify(node.get("verify"))
    do = read_do(node.get("do"), actions)
    if do is None:
        return None
    return ScriptStep(
        node=node,
        title=read_title(node.get("title")),
        action=do[0],
        params=do[1],
        verify=verify,
        within_s=within_s,
        if_denied=optional(node.get("if_denied"), lambda n: enum_of(n, IfDenied), IfDenied.HOLD),
        point_of_no_return=optional(node.get("point_of_no_return"), boolean, False),
    )


def read_do(node: Node | None, actions: Mapping[str, ActionKind]) -> tuple[ActionKind, Any] | None:
    """Return the verb with its words, as in {route: {to: standby}}."""
    if node is None or not mapping(node, what="a verb with its words, as in {route: {to: standby}}"):
        return None
    if len(node.value) != 1:
        node.wrong(f"one step does one thing, got {len(node.value)}")
        return None
    verb, words = next(node.children(), ("", None))
    if words is None:
        return None
    if verb not in actions:
        words.wrong("there is no such verb", did_you_mean(verb, actions), key=True)
        return None
    params = record(words, actions[verb].params)
    return None if params is None else (actions[verb], params)


def read_verify(node: Node | None) -> tuple[tuple[str, ...], float]:
    """Return the points that prove a step, and within how many seconds."""
    if node is None or not mapping(node, ("points", "within"), what="{points: [path.answered], within: 10s}"):
        return (), WITHIN_S
    points = one_or_more(node.get("points"), text)
    if not points:
        node.wrong("names no point: a step that nothing proves is not done", "add points: [path.answered]")
    within_s = optional(node.get("within"), seconds, WITHIN_S)
    if within_s <= 0:
        node.child("within", within_s).wrong("must be above 0")
    return points, within_s


def read_limits(node: Node | None, default: Limits) -> Limits:
    """Return how often a runbook may act; what is not given is as in *default*."""
    if node is None or node.value is None or not mapping(node, ("budget", "block")):
        return default
    budget = optional(node.get("budget"), rate, Rate(default.budget, default.budget_s))
    block_s = optional(node.get("block"), seconds, default.block_s)
    return Limits(budget.count, budget.per_s, block_s)


def read_return(node: Node | None, actions: Mapping[str, ActionKind]) -> Return | None:
    """Return the way home that the script has, None when it has none."""
    if node is None or not mapping(node, ("title", "steps", "automatic", "good_for", "per_day")):
        return None
    require(node, "steps")
    blank = Return(read_title(node.get("title")), read_steps(node.get("steps"), actions), True, None, PER_DAY)
    return read_failback(node, blank)


def read_failback(node: Node, usual: Return) -> Return:
    """Return *usual* with what *node* says of when to go home."""
    good_for = node.get("good_for")
    per_day = optional(node.get("per_day"), whole, usual.per_day)
    if per_day < 1:
        node.child("per_day", per_day).wrong(f"must be at least 1, got {per_day}", "for none at all: automatic: false")
    good_for_s = usual.good_for_s if good_for is None else seconds(good_for)
    return Return(
        title=usual.title,
        steps=usual.steps,
        automatic=optional(node.get("automatic"), boolean, usual.automatic),
        good_for_s=good_for_s,
        per_day=per_day,
    )
