"""What the site file turns into, and that every mistake in it is told at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, load
from agent.core.alarm import Rung
from agent.core.judge import Condition, Op
from agent.core.model import Mode
from agent.core.runbook import IfDenied, Limits, OnReturn
from agent.core.topology import candidates_of
from agent.errors import ConfigError
from probes import PROBES
from runbooks import ACTIONS

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
SITE = "site: {id: branch-1}\n"
LINES = """\
equipment:
  wan1: {kind: line, role: primary, interface: eth1, gateway: 192.0.2.1, targets: {cpe: 192.0.2.1, hq: 203.0.113.1}}
  wan2: {kind: line, role: standby, interface: eth2, gateway: 192.0.2.129, targets: {cpe: 192.0.2.129, hq: 203.0.113.1}}
"""
UPS = "equipment:\n  ups-a: {kind: ups, ups: ups-a}\n"
STANDBY = "runbooks:\n  standby: {use: standby_line}\n"


@pytest.fixture
def site(tmp_path):
    """Give what loads a site file of this text."""

    def loaded(text: str, actions=ACTIONS) -> Config:
        path = tmp_path / "site.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, PROBES, actions)

    return loaded


def mistakes(site, text: str, **keywords) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        site(text, **keywords)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_gets_its_exact_message(path):
    expected = path.with_suffix(".txt").read_text(encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load(path, PROBES, ACTIONS)

    assert "".join(f"{path.name}:{problem}\n" for problem in caught.value.problems) == expected


def test_there_are_as_many_messages_as_bad_files():
    assert len(BAD) >= 30
    assert {path.with_suffix(".txt") for path in BAD} == set((Path(__file__).parent / "bad").glob("*.txt"))


def test_every_mistake_is_told_at_once_and_in_order(site):
    text = """\
site: {id: branch-1, langage: zh}
equipment:
  ups-a: {kind: ups, ups: ups-a, port: 70000, status_period: 10, hots: 192.0.2.9}
  ups-a: {kind: ups, ups: ups-b}
  ups-b: {kind: ups, ups: &x ups-b}
  wan1: {kind: line, role: primary, interface: eth1, gateway: nowhere, targets: {cpe: box, hq: 203.0.113.1, hqq: 1}}
alarms: {ups-a.load_hihg: off}
runbooks: {standby: {use: standby_lin, mode: automatic}}
server: {metrics: "0.0.0.0:80"}
people: {zhang: {}}
"""

    found = mistakes(site, text)

    assert [entry.partition(": ")[2].partition(":")[0] for entry in found] == [
        "site.langage",
        "equipment.ups-a.port",
        "equipment.ups-a.status_period",
        "equipment.ups-a.hots",
        "equipment.ups-a",
        "equipment.ups-b.ups",
        "equipment.wan1.gateway",
        "equipment.wan1.targets.cpe",
        "equipment.wan1.targets.hqq",
        "alarms.ups-a.load_hihg",
        "runbooks.standby.use",
        "runbooks.standby.mode",
        "server.metrics",
        "people",
    ]


def test_the_checks_of_a_plug_in_go_on_after_their_first_mistake(site):
    text = SITE + LINES.replace("gateway: 192.0.2.1,", "gateway: nowhere,").replace("hq: 203.0.113.1", "hq: there")

    found = mistakes(site, text)

    assert [entry.split(": ")[1] for entry in found] == [
        "equipment.wan1.gateway", "equipment.wan1.targets.hq", "equipment.wan2.targets.hq"
    ]  # fmt: skip


def test_ten_lines_are_useful(site):
    config = site(SITE + LINES + "  ups-a: {kind: ups, ups: ups-a}\n  this-host: {kind: host}\n" + STANDBY)

    assert set(config.site.runbooks) == {"standby", "standby.return"}
    assert config.agent.host == "this-host"
    assert config.site.runbooks["standby"].mode is Mode.WATCH
    assert {"wan1.hq_dead", "ups-a.mains_absent", "this-host.disk_full", "path.path_dead"} <= set(config.site.alarms)
    assert config.channels["ups-a"] == "nut:127.0.0.1:3493"
    assert set(config.lines) == {"wan1", "wan2"}
    assert config.site.candidates == candidates_of(config.site.equipment, config.site.alarms)


def test_every_alarm_looks_at_points_that_exist(site):
    config = site(SITE + LINES + "  ups-a: {kind: ups, ups: ups-a}\n  this-host: {kind: host}\n")

    assert set(config.site.alarms_of) <= set(config.site.points)


def test_the_path_is_added_with_the_primary_lines_headquarters(site):
    config = site(SITE + LINES)

    assert config.site.equipment["path"].kind == "path"
    assert config.probe_configs["path"][1].target == "203.0.113.1"


def test_a_declared_path_keeps_its_name_and_proves_the_runbook(site):
    config = site(SITE + LINES + "  hq-path: {kind: path, target: 203.0.113.9}\n" + STANDBY)

    assert "path" not in config.site.equipment
    assert config.site.runbooks["standby"].steps[0].proof[0].point == "hq-path.answered"


def test_line_facts_come_from_the_targets(site):
    text = SITE + LINES.replace("interface: eth1", "source: 192.0.2.2, provider: telecom", 1)
    text = text.replace(
        "hq: 203.0.113.1}", 'second_site: 198.51.100.7, hq: 203.0.113.1, hq_service: "203.0.113.2:443"}', 1
    )

    facts = site(text).site.equipment["wan1"].line

    assert facts is not None
    assert facts.rungs == ("cpe", "hq", "second_site")
    assert (facts.has_service, facts.provider, facts.role) == (True, "telecom", "primary")


# ---------------------------------------------------------------- runbooks


def test_a_runbook_is_bound_to_lines_and_proofs(site):
    book = site(SITE + LINES + STANDBY).site.runbooks["standby"]

    assert (book.cause, book.leaves, book.enters, book.arrangement, book.lock) == (
        "line", "wan1", "wan2", "standby", "lines"
    )  # fmt: skip
    assert book.limits == Limits(2, 3600.0, 0.0)
    assert book.on_return is OnReturn.FINISH
    (step,) = book.steps
    assert step.wanted == (("destination", "default"), ("from", "wan1"), ("to", "wan2"))
    assert step.proof == (Condition("path.answered", Op.IS, True), Condition("path.line", Op.IS, "wan2"))
    assert step.start == (Condition("path.line", Op.IS, "wan1"),)
    assert (step.within_s, step.if_denied, step.resendable) == (10.0, IfDenied.UNDO, True)


def test_the_way_home_is_a_runbook_of_its_own(site):
    books = site(SITE + LINES + STANDBY).site.runbooks
    home = books["standby.return"]

    assert (home.cause, home.leaves, home.enters, home.returns_from) == (None, "wan2", "wan1", "standby")
    assert home.is_return
    assert not books["standby"].is_return
    assert home.limits == Limits(None, 0.0, 0.0)
    assert home.steps[0].wanted == (("destination", "default"), ("from", "wan2"), ("to", "wan1"))
    assert home.failback is not None
    assert (home.failback.automatic, home.failback.good_for_s, home.failback.per_day) == (True, 600.0, 2)


def test_without_failback_there_is_no_way_home(site):
    books = site(SITE + LINES + "runbooks:\n  standby: {use: standby_line, failback: none}\n").site.runbooks

    assert set(books) == {"standby"}
    assert books["standby"].failback is None


def test_limits_and_failback_of_the_site_stand_over_those_of_the_script(site):
    entry = "{use: standby_line, mode: auto, limits: {budget: none, block: 5m}, failback: {good_for: 3s}}"

    config = site(SITE + LINES + f"runbooks: {{standby: {entry}}}\n")
    book = config.site.runbooks["standby"]

    assert book.limits == Limits(None, 0.0, 300.0)
    assert book.failback is not None
    assert book.failback.good_for_s == 3.0
    assert config.site.alarms["wan1.hq_dead"].rungs[0].off_delay_s == 3.0
    assert config.site.alarms["wan2.hq_dead"].rungs[0].off_delay_s == 600.0
    assert any("CAP_NET_ADMIN" in need for need in config.needs)


def test_the_digest_changes_with_script_and_binding(site, tmp_path):
    script = (Path(__file__).parents[2] / "runbooks" / "library" / "standby_line.yaml").read_text(encoding="utf-8")
    (tmp_path / "own.yaml").write_text(script, encoding="utf-8")
    first = site(SITE + LINES + STANDBY).site.runbooks["standby"].digest
    same = site(SITE + LINES + "runbooks:\n  standby: {use: ./own.yaml}\n").site.runbooks["standby"].digest
    (tmp_path / "own.yaml").write_text(script.replace("10s", "20s"), encoding="utf-8")
    other = site(SITE + LINES + "runbooks:\n  standby: {use: ./own.yaml}\n").site.runbooks["standby"].digest
    moved = site((SITE + LINES + STANDBY).replace("wan2", "lte")).site.runbooks["standby"].digest

    assert first == same
    assert len({first, other, moved}) == 3


OWN = """\
runbook: own
starts_on: {cause: line, role: primary}
steps:
  - do: {route: {to: standby}}
    verify: {points: [path.line]}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("route:", "rout:", "own.yaml:4:10: steps[0].do.rout: there is no such verb; did you mean route?"),
        ("to: standby", "too: standby", "own.yaml:4:18: steps[0].do.route.too: unknown key; did you mean to?"),
        ("path.line", "path.lin", "own.yaml:4:5: steps[0]: route says nothing of 'path.lin'; did you mean path.line?"),
        ("[path.line]", "[]", "own.yaml:5:13: steps[0].verify: names no point: a step that nothing proves is not done"),
        ("to: standby", "to: spare", "own.yaml:4:5: steps[0]: no line is bound to the role 'spare'"),
        ("cause: line", "cause: power", "own.yaml:2:20: starts_on.cause: cause power is not yet supported"),
        ("starts_on", "start_on", "own.yaml:2:1: start_on: unknown key; did you mean starts_on?"),
        ("role: primary", "role: spare", "no line is bound to the role spare"),
        ("{points: [path.line]}", "{points: [path.line], within: 0s}", "steps[0].verify.within: must be above 0"),
        ("runbook: own", "runbook: own\nwhen: 1", "own.yaml:2:1: when: unknown key"),
    ],
)
def test_a_mistake_in_a_script_is_told_with_its_place_there(site, tmp_path, old, new, message):
    (tmp_path / "own.yaml").write_text(OWN.replace(old, new), encoding="utf-8")

    found = mistakes(site, SITE + LINES + "runbooks:\n  standby: {use: ./own.yaml}\n")

    assert any(message in entry for entry in found), found


def test_a_proof_by_the_commands_own_channel_is_refused(site):
    echo = {**ACTIONS, "route": replace(ACTIONS["route"], channel="path")}

    found = mistakes(site, SITE + LINES + STANDBY, actions=echo)

    assert any("path.line comes by path, the way of the command itself" in entry for entry in found)


def test_a_step_may_wait_for_a_point_of_the_site(site, tmp_path):
    wait = "  - do: {wait_until: {points: {primary.carrier: true}}}\n    verify: {points: [primary.carrier]}\n"
    (tmp_path / "own.yaml").write_text(OWN + wait, encoding="utf-8")

    book = site(SITE + LINES + "runbooks:\n  standby: {use: ./own.yaml}\n").site.runbooks["standby"]

    assert book.steps[1].proof == (Condition("wan1.carrier", Op.IS, True),)
    assert book.steps[1].wanted == ()


# ---------------------------------------------------------------- alarms


def rungs(config: Config, alarm: str) -> dict[str, Rung]:
    return {str(rung.tier): rung for rung in config.site.alarms[alarm].rungs}


def test_a_delay_is_overridden_for_one_tier_alone(site):
    found = rungs(site(SITE + UPS + "alarms: {ups-a.mains_absent: {orange: {on_delay: 3m}}}\n"), "ups-a.mains_absent")

    assert {tier: rung.on_delay_s for tier, rung in found.items()} == {"yellow": 10.0, "orange": 180.0, "red": 0.0}


def test_an_alarm_or_one_tier_of_it_can_be_off(site):
    config = site(SITE + UPS + "alarms: {ups-a.bypass: off, ups-a.load_high: {yellow: off}}\n")

    assert "ups-a.bypass" not in config.site.alarms
    assert set(rungs(config, "ups-a.load_high")) == {"orange", "red"}


def test_the_way_back_moves_with_the_limit(site):
    found = rungs(site(SITE + UPS + "alarms: {ups-a.load_high: {yellow: {enter: 60%}}}\n"), "ups-a.load_high")

    assert found["yellow"].enter[0].value == pytest.approx(0.60)
    assert found["yellow"].leave[0].value == pytest.approx(0.57)


def test_a_limit_among_other_conditions_is_the_one_that_changes(site):
    text = "alarms: {ups-a.runtime_low: {red: {enter: 5m, leave: 6m}}}\n"

    red = rungs(site(SITE + UPS + text), "ups-a.runtime_low")["red"]

    assert red.enter == (
        Condition("ups-a.on_battery", Op.IS, True),
        Condition("ups-a.battery_runtime_s", Op.BELOW, 300.0),
    )
    assert red.leave[-1] == Condition("ups-a.battery_runtime_s", Op.ABOVE, 360.0)


def test_a_bare_alarm_name_is_for_all_and_the_full_name_wins(site):
    alarms = "alarms: {load_high: {yellow: {on_delay: 2m}}, ups-b.load_high: {yellow: {on_delay: 3m}}}\n"

    config = site(SITE + UPS + "  ups-b: {kind: ups, ups: ups-b}\n" + alarms)

    assert rungs(config, "ups-a.load_high")["yellow"].on_delay_s == 120.0
    assert rungs(config, "ups-b.load_high")["yellow"].on_delay_s == 180.0


# ---------------------------------------------------------------- nothing crashes

WORDS = st.sampled_from([
    "site", "equipment", "alarms", "runbooks", "server", "id", "kind", "line", "ups", "path", "utility", "host", "wan1",
    "wan2", "role", "primary", "standby", "targets", "hq", "cpe", "203.0.113.1", "use", "standby_line", "bind", "mode",
    "auto", "limits", "budget", "2/1h", "failback", "good_for", "10m", "none", "off", "load_high", "yellow", "enter",
    "25%", "fed_by", "through", "interface", "source", "gateway", "profile", "fast", "disks", "/", "period", "1s",
])  # fmt: skip
VALUES = st.recursive(
    WORDS | st.integers(-3, 99999) | st.booleans() | st.none() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)
LINE = st.fixed_dictionaries(
    {"kind": st.just("line")},
    optional={
        "role": VALUES, "interface": VALUES, "source": VALUES, "gateway": VALUES, "profile": VALUES, "fed_by": VALUES,
        "targets": st.dictionaries(WORDS, VALUES, max_size=3),
    },
)  # fmt: skip


@given(st.dictionaries(WORDS, VALUES, max_size=6) | VALUES)
def test_no_tree_of_known_words_brings_anything_but_a_config_or_mistakes(tmp_path_factory, tree):
    check_total(tmp_path_factory, tree)


@given(VALUES, st.dictionaries(WORDS, LINE | VALUES, max_size=3), VALUES, VALUES)
def test_no_values_in_known_places_bring_anything_but_a_config_or_mistakes(tmp_path_factory, one, two, three, four):
    tree = {
        "site": {"id": one, "agent": {"fed_by": three}},
        "equipment": {**two, "ups-a": {"kind": "ups", "ups": one, "fed_by": three}},
        "alarms": {"ups-a.load_high": four},
        "runbooks": {"standby": {"use": "standby_line", "bind": three, "limits": four, "failback": one}},
        "server": four,
    }
    check_total(tmp_path_factory, tree)


def check_total(tmp_path_factory, tree: object) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    try:
        problems = load(path, PROBES, ACTIONS) and ()
    except ConfigError as error:
        problems = error.problems
        if not problems:
            raise
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)
