"""The shipped script `standby_line` says what the design says, with verbs that exist."""

from __future__ import annotations

from importlib.resources import files

import pytest
import yaml

import runbooks
from runbooks.actions.route import KIND, RouteParams

SCRIPT = yaml.safe_load((files(runbooks) / "library" / "standby_line.yaml").read_text(encoding="utf-8"))
BIND = {"primary": "wan1", "standby": "wan2"}


def test_it_starts_on_the_primary_line_and_returns_by_a_run_of_its_own():
    assert SCRIPT["runbook"] == "standby_line"
    assert SCRIPT["starts_on"] == {"cause": "line", "role": "primary"}
    assert SCRIPT["limits"] == {"budget": "2/1h", "block": "0s"}
    assert [step["do"] for step in SCRIPT["steps"]] == [{"route": {"to": "standby"}}]
    assert [step["do"] for step in SCRIPT["failback"]["steps"]] == [{"route": {"to": "primary"}}]


@pytest.mark.parametrize("step", [*SCRIPT["steps"], *SCRIPT["failback"]["steps"]])
def test_every_step_is_proven_by_the_points_that_its_verb_can_prove(step: dict):
    expected = KIND.expects(RouteParams(**step["do"]["route"]), BIND)

    assert set(step["verify"]["points"]) == set(expected)
    assert step["if_denied"] == "undo"
    assert all(step["title"][language] for language in ("zh", "en"))
