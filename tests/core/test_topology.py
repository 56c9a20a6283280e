"""Causes: which candidate is named for which bad points, what refutes one, and what stays unsettled."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.judge import Verdict
from agent.core.model import AlarmKey
from agent.core.site import Equipment, Site
from agent.core.topology import ONE_WITNESS, Named, Raw, candidates_of, name_causes
from tests.fakes.sites import bank, line

FIRST_S = 1000.0  # the first sign of trouble
FAR = ("edge", "hq", "second_site")
ALL = ("cpe", *FAR)
SITE = bank(books=())
TWO_UPS = bank(books=(), ups=("ups-a", "ups-b"))
SHARED = bank(
    books=(), lines=(line("wan1", "primary", provider="telecom"), line("wan2", "standby", provider="telecom"))
)


def dead(name: str, rungs: Iterable[str]) -> set[str]:
    return {f"{name}.{rung}_dead" for rung in rungs}


def named(
    site: Site, bad: set[str], *, unseen: set[str] | None = None, good_asked_at: float = FIRST_S + 0.1
) -> tuple[Named, ...]:
    """Name the causes of *bad*; all else is seen good, asked at *good_asked_at*, but for what is *unseen*."""
    raw: dict[AlarmKey, Raw] = {}
    for key in site.alarms:
        if key in bad:
            raw[key] = Raw({"orange": Verdict.BAD}, FIRST_S, FIRST_S + 0.1, None)
        elif key in (unseen or set()):
            raw[key] = Raw({"orange": Verdict.UNKNOWN}, None, FIRST_S + 0.1, None)
        else:
            raw[key] = Raw({"orange": Verdict.GOOD}, None, good_asked_at, 0.0)
    return name_causes(site.candidates, frozenset(AlarmKey(key) for key in bad), raw)


def the_one(groups: tuple[Named, ...]) -> Named:
    (group,) = groups
    return group


# ---------------------------------------------------------------- one line


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        ({"wan1.port_down", *dead("wan1", ALL)}, "line:wan1:port"),
        ({"wan1.port_down"}, "line:wan1:port"),
        (dead("wan1", ALL), "line:wan1:cpe"),
        (dead("wan1", FAR), "line:wan1:access"),
        (dead("wan1", ("hq", "second_site")), "line:wan1:core"),
    ],
)
def test_the_place_of_a_break_is_the_nearest_that_explains_all_and_is_not_refuted(bad: set[str], cause: str) -> None:
    unseen = dead("wan1", ALL) if bad == {"wan1.port_down"} else None

    group = the_one(named(SITE, bad, unseen=unseen))

    assert (group.causes, group.settled, group.alarms) == ((cause,), True, bad)


def test_a_rung_that_is_bad_by_loss_counts_like_a_dead_one() -> None:
    group = the_one(named(SITE, {"wan1.edge_bad", "wan1.hq_bad", "wan1.second_site_dead"}))

    assert group.causes == ("line:wan1:access",)


def test_a_point_between_good_and_bad_refutes_nothing() -> None:
    """Of a rung that is dead and not lossy over its window yet, "bad" is not seen good; no more is a half-lossy edge."""
    raw_bad = dead("wan1", ("hq", "second_site"))
    group = the_one(named(SITE, raw_bad, unseen={"wan1.edge_dead"}))

    assert group.causes == ("line:wan1:access",)


def test_of_two_points_that_predict_alike_the_far_one_alone_has_no_cause_but_the_line_itself() -> None:
    """The edge is dead, and what lies behind it answers: it only does not answer pings."""
    group = the_one(named(SITE, {"wan1.edge_dead"}))

    assert (group.causes, group.late) == (("device:wan1",), True)
    assert group.against


# ---------------------------------------------------------------- what good and unknown do


def test_unknown_neither_supports_nor_refutes() -> None:
    seen = the_one(named(SITE, dead("wan1", FAR)))
    unseen = the_one(named(SITE, dead("wan1", FAR), unseen={"wan1.cpe_dead"}))

    assert seen.causes == ("line:wan1:access",)
    assert any(reason.startswith("line:wan1:cpe: wan1.cpe_dead is seen good") for reason in seen.against)
    assert unseen.causes == ("line:wan1:cpe",)  # nearer the root, and nothing speaks against it
    unseen_all = named(SITE, set(), unseen=set(SITE.alarms))
    assert unseen_all == ()


def test_good_refutes_only_when_it_was_asked_after_the_first_sign_of_trouble() -> None:
    before = the_one(named(SITE, dead("wan1", FAR), good_asked_at=FIRST_S))
    after = the_one(named(SITE, dead("wan1", FAR), good_asked_at=FIRST_S + 0.001))

    assert before.causes == ("line:wan1:port",)
    assert after.causes == ("line:wan1:access",)


def test_what_was_never_seen_refutes_nothing() -> None:
    bad = frozenset(AlarmKey(key) for key in dead("wan1", FAR))
    raw = {key: Raw({"orange": Verdict.BAD}, FIRST_S, FIRST_S, None) for key in bad}

    assert name_causes(SITE.candidates, bad, raw)[0].causes == ("line:wan1:port",)


# ---------------------------------------------------------------- both lines


def test_headquarters_is_named_when_it_is_dead_over_both_lines_and_other_sites_answer() -> None:
    group = the_one(named(SITE, dead("wan1", ("hq",)) | dead("wan2", ("hq",))))

    assert (group.causes, group.settled) == (("hq",), True)


def test_headquarters_needs_every_line_as_its_witness() -> None:
    group = the_one(named(SITE, dead("wan1", ("hq",)), unseen=dead("wan2", ("hq",))))

    assert group.causes != ("hq",)


def test_all_that_is_beyond_both_lines_is_unsettled_between_two_lines_and_headquarters() -> None:
    group = the_one(named(SITE, dead("wan1", FAR) | dead("wan2", FAR)))

    assert not group.settled
    assert {"line:wan1:access", "line:wan2:access", "hq"} <= set(group.causes)
    assert "observer" not in group.causes


def test_a_common_provider_settles_what_would_be_unsettled() -> None:
    group = the_one(named(SHARED, dead("wan1", FAR) | dead("wan2", FAR)))

    assert (group.causes, group.settled) == (("provider:telecom",), True)


def test_a_common_provider_is_refuted_by_one_far_point_that_answers() -> None:
    groups = named(SHARED, dead("wan1", FAR) | dead("wan2", ("hq",)))

    assert "provider:telecom" not in {cause for group in groups for cause in group.causes}


def test_the_observer_is_named_when_every_rung_of_every_line_is_dead() -> None:
    group = the_one(named(SITE, dead("wan1", ALL) | dead("wan2", ALL)))

    assert group.causes == ("observer",)


def test_the_observer_with_its_ports_is_named_when_all_ports_are_down() -> None:
    ports = {"wan1.port_down", "wan2.port_down"}
    group = the_one(named(SITE, ports | dead("wan1", ALL) | dead("wan2", ALL)))

    assert group.causes == ("observer:ports",)


def test_one_answer_of_one_box_clears_the_observer() -> None:
    group = the_one(named(SITE, dead("wan1", ALL) | dead("wan2", FAR)))

    assert not {"observer", "observer:ports"} & set(group.causes)


# ---------------------------------------------------------------- power


def test_one_ups_alone_is_one_witness_of_the_mains() -> None:
    group = the_one(named(SITE, {"ups-a.mains_absent"}))

    assert (group.causes, group.settled, group.marks) == (("utility:utility",), True, (ONE_WITNESS,))


def test_two_witnesses_name_the_mains_without_a_mark() -> None:
    group = the_one(named(TWO_UPS, {"ups-a.mains_absent", "ups-b.mains_absent"}))

    assert (group.causes, group.marks) == (("utility:utility",), ())


def test_of_two_ups_one_on_battery_is_its_own_input() -> None:
    group = the_one(named(TWO_UPS, {"ups-a.mains_absent"}))

    assert group.causes == ("input:ups-a",)
    assert group.against == ("utility:utility: ups-b.mains_absent is seen good since",)


def test_a_second_ups_that_cannot_be_seen_leaves_the_mains_with_one_witness() -> None:
    group = the_one(named(TWO_UPS, {"ups-a.mains_absent"}, unseen={"ups-b.mains_absent"}))

    assert (group.causes, group.marks) == (("utility:utility",), (ONE_WITNESS,))


def test_a_battery_that_runs_out_belongs_to_the_mains_that_is_absent() -> None:
    bad = {"ups-a.mains_absent", "ups-a.runtime_low", "ups-a.charge_low"}
    group = the_one(named(SITE, bad))

    assert (group.causes, group.alarms) == (("utility:utility",), bad)


def test_what_is_behind_a_battery_is_no_witness_of_the_mains() -> None:
    predicted = {
        alarm
        for candidate in SITE.candidates
        if candidate.kind == "utility"
        for point in candidate.predicts
        for alarm in point.alarms
    }

    assert predicted == {"ups-a.mains_absent"}


def test_two_sources_are_two_utilities() -> None:
    equipment = {
        name: Equipment(name, "ups", fed_by=(source,)) for name, source in (("ups-a", "grid"), ("ups-b", "solar"))
    }
    site = bank(books=(), ups=())
    alarms = [AlarmKey(f"{name}.mains_absent") for name in equipment]
    ids = {candidate.id for candidate in candidates_of(equipment, [*site.alarms, *alarms])}

    assert {"utility:grid", "utility:solar", "input:ups-a", "input:ups-b"} <= ids


# ---------------------------------------------------------------- late causes


def test_a_closed_service_is_no_reason_to_blame_the_line() -> None:
    lines = (line("wan1", "primary"), line("wan2", "standby"))
    equipment = {e.name: e for e in lines}
    alarm = AlarmKey("wan1.service_closed")
    group = name_causes(candidates_of(equipment, [alarm]), frozenset({alarm}), {})[0]

    assert (group.causes, group.late) == (("service",), True)


def test_what_nothing_else_explains_is_the_device_itself() -> None:
    group = the_one(named(SITE, {"ups-a.device_alarm"}))

    assert (group.causes, group.late, group.settled) == (("device:ups-a",), True, True)


def test_dead_traffic_follows_from_a_dead_line() -> None:
    group = the_one(named(SITE, {"path.path_dead", *dead("wan1", FAR)}))

    assert group.causes == ("line:wan1:access",)
    assert "path.path_dead" in group.alarms


def test_an_alarm_of_no_known_equipment_is_still_told() -> None:
    stranger = frozenset({AlarmKey("nobody.knows")})

    group = the_one(name_causes((), stranger, {}))

    assert (group.causes, group.alarms, group.settled) == ((), stranger, False)


ALARMS = st.sets(st.sampled_from(sorted(SHARED.alarms)), max_size=14)


@given(ALARMS, ALARMS, st.sampled_from((FIRST_S - 1.0, FIRST_S + 0.1)))
def test_every_bad_alarm_is_in_exactly_one_group(bad: set[str], unseen: set[str], good_asked_at: float) -> None:
    groups = named(SHARED, bad, unseen=unseen - bad, good_asked_at=good_asked_at)

    assert sorted(alarm for group in groups for alarm in group.alarms) == sorted(bad)
    assert all(group.alarms for group in groups)


@given(ALARMS, ALARMS)
def test_a_settled_cause_explains_its_whole_group_and_nothing_refutes_it(bad: set[str], unseen: set[str]) -> None:
    rows = {candidate.id: candidate for candidate in SHARED.candidates}
    for group in named(SHARED, bad, unseen=unseen - bad):
        if group.settled:
            (cause,) = group.causes
            assert group.alarms <= rows[cause].explains()
            if not group.late:
                predicted = [point for point in rows[cause].predicts if not bad & set(point.alarms)]
                assert all(unseen & set(point.alarms) for point in predicted)
