"""The example site file loads, and the pages on settings and alarms say what the program does."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from agent.config import AGENT_KEYS, SITE_KEYS, load
from agent.core.model import Mode
from agent.coverage import report
from agent.fields import file_key
from agent.server_section import SERVER_KEYS, TLS_KEYS
from agent.yaml_source import read
from probes import PROBES
from runbooks import ACTIONS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "config.example.yaml"
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the part of the page under the heading that begins with *title*."""
    found = re.search(rf"^#+ {re.escape(title)}.*?$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def keys_in(text: str) -> set[str]:
    """Return the keys in the tables of *text* that are about keys."""
    tables = re.findall(r"^\| key .*\n((?:\|.*\n)*)", text, re.MULTILINE)
    return {key for table in tables for key in re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)}


def test_the_example_is_a_whole_branch_that_only_watches():
    config = load(EXAMPLE, PROBES, ACTIONS)

    assert {one.kind for one in config.site.equipment.values()} == {"utility", "ups", "line", "path", "host"}
    assert config.site.runbooks["standby"].mode is Mode.WATCH
    assert (config.site.id, config.site.language) == ("county-branch-01", "zh")
    assert config.agent.fed_by == ("ups-a",)


def test_the_example_uses_every_key_of_its_sections():
    data = read(EXAMPLE).data

    assert set(data["site"]) == set(SITE_KEYS)
    # Files of TLS and passwords that are not there would keep the agent from starting: the example has them as comments.
    assert set(data["server"]) == {*SERVER_KEYS} - {"metrics_tls", "metrics_password_file"}
    assert all(re.search(rf"# +{key}: ", EXAMPLE.read_text(encoding="utf-8")) for key in SERVER_KEYS[2:4])


def test_the_ten_lines_of_the_page_load(tmp_path):
    (tmp_path / "site.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0], encoding="utf-8")

    assert set(load(tmp_path / "site.yaml", PROBES, ACTIONS).site.runbooks) == {"standby", "standby.return"}


def test_the_alarm_overrides_of_the_page_load(tmp_path):
    site, alarms = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "site.yaml").write_text(site + alarms, encoding="utf-8")

    assert "this-host.cpu_high" not in load(tmp_path / "site.yaml", PROBES, ACTIONS).site.alarms


@pytest.mark.parametrize("kind", PROBES.values(), ids=lambda kind: kind.name)
def test_every_key_of_a_probe_has_a_row_with_its_default(kind):
    text = section(f"{kind.equipment_kinds[0]}, probe {kind.name}")

    for entry in dataclasses.fields(kind.config):
        assert file_key(entry.name) in keys_in(text)
        row = next(line for line in text.splitlines() if line.startswith(f"| `{file_key(entry.name)}` |"))
        if entry.default is dataclasses.MISSING:
            assert "required" in row
        elif entry.name.endswith("_s"):
            assert f"| `{entry.default:g}s` |" in row
        elif isinstance(entry.default, int | str):
            assert f"| `{entry.default}` |" in row
    assert {key for key in keys_in(text) if "." not in key} == {
        file_key(e.name) for e in dataclasses.fields(kind.config)
    }


def test_every_key_of_the_other_sections_has_a_row():
    assert keys_in(section("site\n".strip())) == {*SITE_KEYS, *(f"agent.{key}" for key in AGENT_KEYS)} - {"agent"}
    assert keys_in(section("server")) == {*SERVER_KEYS, *(f"metrics_tls.{key}" for key in TLS_KEYS)} - {"metrics_tls"}


def test_the_page_of_alarms_is_what_the_tables_say():
    spec = importlib.util.spec_from_file_location("alarm_table", ROOT / "tools" / "alarm_table.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    assert (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8") == tool.page(), (
        "run: python tools/alarm_table.py > docs/alarms.md"
    )


def test_the_report_names_what_is_covered_and_what_is_not():
    coverage = report(load(EXAMPLE, PROBES, ACTIONS))

    by_id = {fault.id: fault for fault in coverage.faults}
    assert by_id["line:wan1:access"].runbook == "standby"
    assert by_id["line:wan2:access"].runbook is None
    assert by_id["hq"].runbook is None
    assert any("one witness of the mains" in gap for gap in coverage.gaps)
    assert "  mains (utility): seen through what it feeds" in coverage.lines()
    assert coverage.data()["faults"][0] == {
        "id": "line:wan1:port", "text": "the port, cable or box of wan1", "runbook": "standby", "mode": "watch"
    }  # fmt: skip


def test_the_report_of_a_bare_site_is_mostly_gaps(tmp_path):
    (tmp_path / "site.yaml").write_text("site: {id: a}\nequipment: {this-host: {kind: host}}\n", encoding="utf-8")

    gaps = report(load(tmp_path / "site.yaml", PROBES, ACTIONS)).gaps

    assert gaps == (
        "no UPS: loss of the mains is not seen before everything stops",
        "no line: loss of the network is not seen",
    )


def test_the_report_tells_of_lines_that_fall_together(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8").replace("provider: unicom", "provider: telecom")
    (tmp_path / "site.yaml").write_text(text.replace("mode: watch", "mode: 'off'"), encoding="utf-8")

    gaps = report(load(tmp_path / "site.yaml", PROBES, ACTIONS)).gaps

    assert "wan1 and wan2 are both of telecom: its network failing takes both" in gaps
    assert "no runbook leaves wan1: when it fails, a person moves the traffic" in gaps
