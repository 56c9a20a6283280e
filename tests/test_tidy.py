"""
The house rules that a program can check. What breaks one today stands in a table with its number, which may only sink.

Each rule is one test; its message names file, line and what to do.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "probes", "runbooks", "drills")

MODULE_LINES_MAX = 499
PLUGIN_LINES_MAX = 200
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_USUAL = 45
USUAL_SHARE_MIN = 0.95

# The ratchet: what is over a limit, with its present length. A row goes when the thing fits; no row is added.
LONG_MODULES: dict[str, int] = {}
LONG_PLUGINS: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

CORE_MAY_IMPORT = {"typing", "dataclasses", "enum", "collections", "math", "functools", "itertools", "__future__"}
CLOCK_READS = {
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "clock_gettime", "clock_gettime_ns"),
        *("perf_counter", "perf_counter_ns", "process_time", "process_time_ns", "thread_time", "thread_time_ns"),
        *("localtime", "gmtime", "ctime", "asctime", "strftime"),
    },
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
FIXED_WAIT_MAX_S = (
    0.1  # a poll in a loop with a deadline waits this long at most; longer is a guess at somebody's speed
)

# Written with classes, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/")
REGISTRY_HOST = re.compile(r"(?:pypi|pythonhosted|npmjs|deb\.debian|security\.debian)\.(?:org|com)")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@cache
def tree(path: Path) -> ast.Module:
    """Return the parsed module at *path*."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules(*folders: str) -> list[Path]:
    """Return the Python files under *folders*, in order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    """Return *path* as seen from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def line_count(path: Path) -> int:
    """Return the number of lines of *path*."""
    return len(path.read_text(encoding="utf-8").splitlines())


def tracked_files() -> list[Path]:
    """Return the files of the repository, new ones included; in an unpacked source archive, all that is there."""
    if not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    # The tests may run as root in a clone that belongs to somebody else.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / entry for entry in listed.split("\0") if entry and (ROOT / entry).is_file()]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Give each function of *path* as "file::outer.inner" with its number of lines, its own docstring left out."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}.{child.name}".lstrip(".")
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name(path)}::{inner}", code_lines(child)
            yield from walk(child, inner)

    yield from walk(tree(path), "")


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of *function* from `def` to its end; a docstring is no code."""
    first = function.body[0]
    is_documented = ast.get_docstring(function, clean=False) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if is_documented else 0)


def check_ratchet(lengths: dict[str, int], limit: int, known: dict[str, int], table: str) -> None:
    """Fail for what is newly over *limit* or longer than its row in *known*, and for rows that can sink or go."""
    over = {key: length for key, length in lengths.items() if length > limit}
    wrong = [
        f"{key}: {length} lines, at most {limit}" for key, length in over.items() if length > known.get(key, limit)
    ]
    wrong += [f"{key}: lower its row in {table} from {known[key]} to {over.get(key, 'nothing')}"
              for key in known if over.get(key, 0) < known[key]]  # fmt: skip

    assert not wrong, "\n".join(wrong)


def test_every_module_stays_within_its_length():
    lengths = {name(path): line_count(path) for path in modules(*PACKAGES, "tests", "tools")}

    check_ratchet(lengths, MODULE_LINES_MAX, LONG_MODULES, "LONG_MODULES")


def test_every_probe_and_every_action_stays_within_its_length():
    plugins = [*(ROOT / "probes").glob("*.py"), *(ROOT / "runbooks" / "actions").glob("*.py")]

    check_ratchet({name(path): line_count(path) for path in plugins}, PLUGIN_LINES_MAX, LONG_PLUGINS, "LONG_PLUGINS")


def test_no_function_is_longer_than_the_wall():
    lengths = dict(entry for path in modules(*PACKAGES, "tools") for entry in functions(path))

    check_ratchet(lengths, FUNCTION_LINES_MAX, LONG_FUNCTIONS, "LONG_FUNCTIONS")


def test_nearly_all_functions_are_short():
    lengths = [length for path in modules(*PACKAGES) for _, length in functions(path)]
    usual = sum(length <= FUNCTION_LINES_USUAL for length in lengths)

    assert usual >= USUAL_SHARE_MIN * len(lengths), (
        f"{len(lengths) - usual} of {len(lengths)} functions are over 45 lines"
    )


def test_every_module_says_what_it_is():
    silent = [name(path) for path in modules(*PACKAGES, "tests", "tools") if not ast.get_docstring(tree(path))]

    assert not silent, f"no docstring at the top: {silent}"


def clock_reads(path: Path) -> Iterator[str]:
    """Give each place in *path* where a clock is read."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            read = {alias.name for alias in node.names} & CLOCK_READS["time"]
        elif isinstance(node, ast.Attribute):
            owner = node.value
            owner_name = getattr(owner, "id", getattr(owner, "attr", ""))  # `time.time`, `datetime.datetime.now`
            read = {node.attr} & CLOCK_READS.get(owner_name, set())
        else:
            continue
        if read:
            yield f"{name(path)}:{node.lineno}: {', '.join(sorted(read))}"


def test_only_one_module_reads_clocks():
    reads = [read for path in modules(*PACKAGES) if name(path) != "agent/clock.py" for read in clock_reads(path)]

    assert not reads, "\n".join(["take the time as an argument, or from agent.clock:", *reads])


def fixed_waits(path: Path) -> Iterator[str]:
    """Give each place in *path* that sleeps for a fixed time longer than one poll."""
    for node in ast.walk(tree(path)):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called == "sleep" and node.args[0].value > FIXED_WAIT_MAX_S:
            yield f"{name(path)}:{node.lineno}: sleep({node.args[0].value})"


def test_no_test_in_real_time_sleeps_for_a_guessed_time():
    def has_virtual_time(path: Path) -> bool:
        return any(module == "drills.vtime" for _, module in imported(path))

    waits = [wait for path in modules("tests") if not has_virtual_time(path) for wait in fixed_waits(path)]

    assert not waits, "\n".join(["wait for an event, or poll for it with a deadline:", *waits])


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Give line and full name of each module that *path* imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def test_the_core_imports_nothing_that_touches_the_world():
    def is_pure(module: str) -> bool:
        own = module == "agent.errors" or module == "agent.core" or module.startswith("agent.core.")
        return own or module.partition(".")[0] in CORE_MAY_IMPORT

    found = [(path, line, module) for path in modules("agent/core") for line, module in imported(path)]
    wrong = [f"{name(path)}:{line}: {module}" for path, line, module in found if not is_pure(module)]

    assert found
    assert not wrong, "\n".join(["the core may not import:", *wrong])


def test_every_module_has_its_place_in_the_layers():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    placed = set(re.findall(r"[\w.]+", settings["importlinter:contract:layers"]["layers"]))
    parts = [path for folder in ("agent", "drills") for path in (ROOT / folder).iterdir()]
    names = {
        f"{path.parent.name}.{path.stem}" for path in parts if path.suffix == ".py" or (path / "__init__.py").is_file()
    }

    lost = sorted(name for name in names - placed if not name.endswith(".__init__"))

    assert not lost, f"not in the layers of setup.cfg: {lost}"


def test_no_file_tells_of_the_machine_it_was_written_on():
    found = []
    for path in tracked_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name(path)}:{number}: {line.strip()[:100]}" for number, line in enumerate(lines, 1)
                  if MACHINE_PATH.search(line) or REGISTRY_HOST.search(line)]  # fmt: skip

    assert not found, "\n".join(["a path of a machine or an address of a registry:", *found])


def test_every_link_between_our_pages_leads_somewhere():
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    broken = [f"{name(page)}: {target}" for page in pages for target in LINK.findall(page.read_text(encoding="utf-8"))
              if not (page.parent / target).exists()]  # fmt: skip

    assert pages
    assert not broken, "\n".join(broken)


def test_both_readmes_give_the_same_commands():
    def commands(page: str) -> list[str]:
        return re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

    assert commands("README.md") == commands("README.zh-CN.md") != []


def test_what_runs_is_locked_to_the_same_versions_as_what_is_tested():
    def locked(file: str) -> set[str]:
        return set(re.findall(r"^[a-z][^\\\n]*", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))

    run, everything = locked("constraints-run.txt"), locked("constraints.txt")

    assert run
    assert run <= everything, f"run tools/lock: {sorted(run - everything)}"
    assert all("==" in entry for entry in everything)


def has_row(page: str, word: str) -> bool:
    """Tell whether a table of *page* has a row that begins with *word*."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(rf"^\|\s*\[?`?{re.escape(word)}`?[\]\s|]", text, re.MULTILINE) is not None


def has_test(folder: str, word: str) -> bool:
    """Tell whether a test file in *folder* is named after *word*."""
    return any(re.search(rf"_{re.escape(word)}(_|$)", path.stem) for path in (ROOT / folder).rglob("test_*.py"))


# It sends nothing; the scripts that need it (mains stable, generator accepted) come with that equipment.
NOT_IN_THE_EXAMPLE = {"wait_until"}


def example_words() -> set[str]:
    """Return the words of the example site file and of the library scripts that it uses, comments left out."""
    text = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
    scripts = [path for path in (ROOT / "runbooks" / "library").glob("*.yaml") if re.search(rf"\b{path.stem}\b", text)]
    text += "".join(path.read_text(encoding="utf-8") for path in scripts)
    return set(re.findall(r"\w+", re.sub(r"(?m)(^|\s)#.*$", "", text)))


@pytest.mark.parametrize(
    ("table", "tests", "page"),
    [("PROBES", "tests/probes", "docs/probes.md"), ("ACTIONS", "tests/runbooks", "docs/actions.md")],
)
def test_every_probe_and_every_action_has_all_its_parts(table, tests, page):
    """A row of its table comes with a test file, a place in the example site file and a row in the docs."""
    import probes
    import runbooks

    kinds = {"PROBES": lambda: probes.PROBES, "ACTIONS": lambda: runbooks.ACTIONS}[table]()
    words = example_words() | NOT_IN_THE_EXAMPLE
    lacking = [f"{kind}: no test_…{kind}….py under {tests}" for kind in kinds if not has_test(tests, kind)]
    lacking += [f"{kind}: nothing in config.example.yaml uses it" for kind in kinds if kind not in words]
    lacking += [f"{kind}: no row in {page}" for kind in kinds if not has_row(page, kind)]

    assert kinds
    assert not lacking, "\n".join(lacking)
