"""The pages about the core say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from agent.core import invariants

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"


def test_the_page_of_state_machines_is_what_the_tables_say() -> None:
    command = [sys.executable, str(ROOT / "tools" / "state_tables.py")]
    page = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout

    assert (DOCS / "state-machines.md").read_text(encoding="utf-8") == page, (
        "run: python tools/state_tables.py > docs/state-machines.md"
    )


def test_every_rule_that_is_asked_has_a_row_with_tests_that_exist() -> None:
    page = (DOCS / "invariants.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (I\d+) \|(.*)\|$", page, re.MULTILINE))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page)

    assert set(invariants.RULES) <= set(rows)
    assert [name for name in named if f"def {name}(" not in tests] == []
    assert [rule for rule, row in rows.items() if not re.search(r"`(test_\w+|tests/\S+)`", row)] == []
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", page) if not (ROOT / path).is_file()] == []
