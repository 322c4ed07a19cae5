"""Figures of lineages that are made up: what is drawn, what is left out and said to be, and over what a number is."""

import math
import re

import pytest

from workbench.drift.uncertainty import Estimate, not_enough
from workbench.reports import figures
from workbench.reports.charts import Line, Point, lines
from workbench.reports.figures import kind_of, nowhere
from workbench.reports.matrix import grid
from workbench.views.inspection import Overview
from workbench.views.records import NOT_MEASURED, PolicyView, VersionView


def sure(value, half=0.01):
    return Estimate(value, value - half, value + half, 100, "t")


def lineage(rounds, numbers, *, updates=None, anchors=None, champion=None):
    """Policies p0 (the base) to p<rounds>; round t trained on version v<t>."""
    policies = [
        PolicyView(f"policy-{t}" if t else "tiny", f"p{t}", t, None, f"v{t}" if t else "", (anchors or {}).get(t, {}),
                   (updates or {}).get(t, False), t == champion)
        for t in range(rounds + 1)
    ]  # fmt: skip
    versions = tuple(VersionView(f"version-{t}", f"v{t}", t) for t in range(1, rounds + 1))
    return Overview(tuple(policies), versions, "as always", "", numbers, ())


def link(policy, name, suite):
    return f"?{policy}:{name}:{suite}"


def column(figure, name):
    """What a figure says of one of its lines, by the name of the row."""
    place = figure.heads.index(name) - 1
    return {row: values[place] for row, values in figure.table}


def test_kl_has_a_line_for_each_anchor_on_new_and_on_old_prompts():
    kl = {("p3", "kl/p0", "samples/v3"): 0.5, ("p3", "kl/p2", "samples/v3"): 0.2, ("p3", "kl/p1", "samples/v3"): 0.3,
          ("p3", "kl/p1", "samples/v1"): 0.1, ("p3", "kl/p1", "samples/v2"): 0.7, ("p3", "kl/cafe0123456", "samples/v3"): 0.9,
          ("p2", "kl/p1", "samples/v2"): 0.4}  # fmt: skip
    anchors = {2: {"p1": 1.0}, 3: {"p0": 0.2, "p1": 0.4, "p2": 0.2, "cafe0123456": 0.2}}
    figure = figures.divergences(lineage(3, {k: sure(v) for k, v in kl.items()}, anchors=anchors), nowhere)
    assert figure.heads == ("nats per token", "base, new prompts", "parent, new prompts", "cafe0123, new prompts",
                            "round 1, old prompts", "round 1, new prompts")  # fmt: skip
    # Two anchors on the same answers stand beside each other, each with the interval it has alone.
    assert column(figure, "round 1, new prompts")["round 3"] == sure(0.3)._replace(method="t; MOVER over 1")
    assert column(figure, "cafe0123, new prompts")["round 3"].value == pytest.approx(0.9)
    # Answers to prompts of two versions are independent: 0.01 and 0.01 add in quadrature, over two.
    old = column(figure, "round 1, old prompts")["round 3"]
    assert (old.value, old.high - old.value) == (pytest.approx(0.4), pytest.approx(0.01 * math.sqrt(2) / 2))
    # In round 2 the same policy was the parent, and is drawn as that.
    assert column(figure, "parent, new prompts")["round 2"].value == 0.4
    assert column(figure, "round 1, new prompts")["round 2"].value is None


def test_a_point_of_several_versions_opens_one_that_was_measured():
    # Of the versions of earlier rounds v1 was not measured, v2 was.
    view = lineage(3, {("p3", "kl/p0", "samples/v2"): sure(0.2)})
    drawn = figures.divergences(view, link).drawn
    assert "samples/v2" in drawn
    assert "samples/v1" not in drawn


def test_of_many_anchors_the_furthest_are_drawn_and_the_note_says_of_how_many():
    others = [f"{k:08d}" for k in range(20)]
    kl = {("p1", f"kl/{other}", "samples/v1"): sure(0.1 * k) for k, other in enumerate(others, start=1)}
    figure = figures.divergences(lineage(1, kl, anchors={1: dict.fromkeys(others, 0.05)}), nowhere)
    assert "12 of 20 lines to other anchors: those that moved furthest" in figure.note
    assert figure.heads[1:] == tuple(f"{other}, new prompts" for other in reversed(others[8:]))


@pytest.mark.parametrize(("rounds", "most"), [(2, 12), (45, 6)])
def test_of_many_suites_certain_falls_come_first_and_the_note_says_of_how_many(rounds, most):
    # Forty-eight suites gained 10 to 57 points, one lost 2 for certain, and one lost 3, which may be chance.
    taxes = {f"gain-{k:02d}": sure(-0.1 - 0.01 * k) for k in range(48)}
    taxes |= {"fell": sure(0.02), "unsure": sure(0.03, half=0.04)}
    view = lineage(rounds, {(f"p{rounds}", "tax", suite): value for suite, value in taxes.items()})
    figure = figures.taxes(view, nowhere)
    assert f" {most} of 50 suites: those that became worse for certain" in figure.note
    assert figure.heads[1:] == ("fell", *(f"gain-{k:02d}" for k in range(47, 48 - most, -1)))
    assert {suite for _, _, suite in figure.numbers} == set(figure.heads[1:])


def test_lines_are_chosen_by_how_far_they_moved_and_not_by_their_level():
    # Thirteen versions with answers of 100 tokens that stayed, one whose answers of 5 tokens became 9 long.
    numbers = {(f"p{t}", "length", f"samples/v{k}"): sure(100.0) for t in (0, 14) for k in range(1, 14)}
    numbers |= {("p0", "length", "samples/v14"): sure(5.0), ("p14", "length", "samples/v14"): sure(9.0)}
    figure = figures.answers(lineage(14, numbers), nowhere, *figures.ANSWERS[0])
    assert figure.heads[1] == "version-14"
    assert "12 of 14 versions: those that moved furthest" in figure.note


def test_repetition_is_worse_where_the_number_falls():
    numbers = {
        (f"p{t}", "distinct-2", f"samples/v{k}"): sure(0.3 + 0.5 * (t > 0)) for t in (0, 13) for k in range(1, 13)
    }
    numbers |= {("p0", "distinct-2", "samples/v13"): sure(0.9), ("p13", "distinct-2", "samples/v13"): sure(0.8)}
    figure = figures.answers(lineage(13, numbers), nowhere, *figures.ANSWERS[1])
    assert figure.heads[1] == "version-13"  # it fell by 0.1, the others rose by 0.5


def test_few_suites_are_all_drawn_and_nothing_is_said_of_it():
    view = lineage(1, {("p1", "tax", f"suite-{k}"): sure(0.1) for k in range(12)})
    figure = figures.taxes(view, nowhere)
    assert (len(figure.heads), " of " in figure.note.replace("percent of", "")) == (13, False)


def test_margins_say_that_older_versions_are_not_drawn():
    assert "The last 6 of 7 versions" in figures.margins(lineage(7, {}), nowhere).note
    assert "The last" not in figures.margins(lineage(6, {}), nowhere).note


def test_margins_are_told_by_their_size_and_not_by_how_sure_somebody_was():
    # The lowest quarter holds what the parent was surest of and wrong about.
    drawn = figures.margins(lineage(1, {("p1", "margin quartile 1", "retention/v1"): sure(-0.5)}), nowhere)
    assert [name for name, _ in drawn.table] == ["lowest of version-1", "highest of version-1"]
    assert "whose margin was lowest there" in drawn.note


def paths(drawn):
    """How many points each line leads through."""
    return [len(points.split()) for points in re.findall(r'<polyline points="([^"]*)"', drawn)]


def test_a_line_breaks_where_a_round_was_not_measured():
    values = [sure(0.1), sure(0.2), NOT_MEASURED, sure(0.4), sure(0.5), sure(0.6)]
    points = tuple(Point(x, value, f"round {x}") for x, value in enumerate(values, start=1))
    drawn = lines([Line("tax", points)], title="tax", unit="points")
    assert paths(drawn) == [2, 3]
    assert drawn.count("<circle") == 5
    # So does a band, and a round that stands alone keeps its dot.
    many = tuple(Point(x, NOT_MEASURED if x in {50, 52} else sure(0.1), f"round {x}") for x in range(1, 100))
    drawn = lines([Line("tax", many)], title="tax", unit="points")
    assert paths(drawn) == [49, 1, 47]
    assert drawn.count("<polygon") == 3
    assert "tax, round 51:" in drawn


def test_figures_break_where_a_round_was_not_measured():
    tax = {(f"p{t}", "tax", "choice"): sure(0.01 * t) for t in (1, 2, 4, 5)}
    kl = {(f"p{t}", "kl/p0", f"samples/v{t}"): sure(0.01 * t) for t in (1, 2, 4, 5)}
    view = lineage(5, tax | kl)
    assert paths(figures.taxes(view, nowhere).drawn) == [2, 2]
    assert paths(figures.divergences(view, nowhere).drawn) == [2, 2, 1]  # in round 1 the base is the parent, too


def test_what_a_later_round_replaces_was_not_replaced_before():
    # Round 3 forgets version 1; round 5 replaces it.
    numbers = {("p3", "accuracy", "retention/v1"): sure(0.6), ("p3", "from parent", "retention/v1"): sure(-0.3),
               ("p5", "accuracy", "retention/v1"): sure(0.5), ("p5", "from parent", "retention/v1"): sure(-0.1)}  # fmt: skip
    view = lineage(5, numbers, updates={5: "v1"})
    first = view.versions[0]
    assert [kind_of(view, first, p) for p in view.policies] == [
        "untrained", "own", "earlier", "earlier", "earlier", "replaced"
    ]  # fmt: skip
    assert [cell.kind for cell in grid(view, nowhere).rows[0].cells][3:] == ["earlier fell", "earlier", "replaced"]


def test_what_is_still_known_counts_a_version_until_it_is_replaced():
    accuracy = {("p2", "v1"): 0.9, ("p3", "v1"): 0.5, ("p3", "v2"): 0.7}
    view = lineage(3, {(p, "accuracy", f"retention/{v}"): sure(a) for (p, v), a in accuracy.items()}, updates={3: "v1"})
    known = column(figures.kept(view, nowhere), "earlier versions")
    assert (known["round 2"].value, known["round 3"].value) == (0.9, 0.7)


def measured(accuracy, tax):
    """Numbers by policy: accuracies of versions 1, 2, ... and taxes of suites, None where there is none."""
    found = {(p, "accuracy", f"retention/v{k}"): a for p, each in accuracy.items() for k, a in enumerate(each, start=1)}
    found |= {(p, "tax", f"suite-{k}"): t for p, each in tax.items() for k, t in enumerate(each, start=1)}
    return {key: sure(value) for key, value in found.items() if value is not None}


def test_the_pareto_set_holds_what_no_other_policy_beats():
    # p2 is beaten by p3: less known for as much tax. p1 costs least, p4 knows most, p3 lies between.
    accuracy = {"p1": [0.6] * 4, "p2": [0.65] * 4, "p3": [0.8] * 4, "p4": [0.9] * 4}
    tax = {"p1": [0.01], "p2": [0.03], "p3": [0.03], "p4": [0.05]}
    figure = figures.pareto(lineage(4, measured(accuracy, tax), champion=4), nowhere)
    classes = {name: kind for kind, name in re.findall(r'class="dot ([^"]*)"><title>(round \d)', figure.drawn)}
    assert classes == {"round 1": "c0 front", "round 2": "c0", "round 3": "c0 front", "round 4": "champion front"}
    assert paths(figure.drawn) == [3]
    assert "on 4 versions against mean tax of 1 suite, the same for every policy" in figure.note
    assert "Without" not in figure.note


def test_equal_policies_beat_nobody():
    accuracy, tax = {p: [0.8] * 2 for p in ("p1", "p2")}, {p: [0.02] for p in ("p1", "p2")}
    assert figures.pareto(lineage(2, measured(accuracy, tax)), nowhere).drawn.count("front") == 2


def test_gain_against_tax_is_over_the_same_and_names_who_was_left_out():
    # p1 was never measured on version 3, p2 not on suite 2, and nobody on version 4 but p2 and p3: the newest was not.
    accuracy = {"p1": [0.9, 0.9, None], "p2": [0.6, 0.7, 0.8, 0.1], "p3": [0.7, 0.8, 0.9, 0.1], "p4": [0.5, 0.6, 0.7]}
    tax = {"p1": [0.01, 0.01], "p2": [0.02, None], "p3": [0.03, 0.5], "p4": [0.04, 0.5]}
    figure = figures.pareto(lineage(4, measured(accuracy, tax)), nowhere)
    assert {name: (round(across.value, 9), up.value and round(up.value, 9)) for name, (across, up) in figure.table} == {
        "round 2": (2.0, 0.7), "round 3": (3.0, 0.8), "round 4": (4.0, 0.6), "round 1": (1.0, None),
    }  # fmt: skip
    # It stays in the table, last, and in the file of numbers: of three versions a hundred pairs each, one was not measured.
    assert figure.table[-1][1][1] == not_enough(200, "not measured")
    assert figure.drawn.count("<circle") == 3
    assert "on 3 versions against mean tax of 1 suite" in figure.note
    assert " Without round 1: not measured on all of these." in figure.note
    assert (
        "`workbench evaluate policy-1 --settings FILE`, with the settings of the round, adds that policy."
        in figure.note
    )
    assert " Without version-4: not measured of round 4." in figure.note
    assert " Without suite-2: not measured of all policies." in figure.note
    assert {policy for policy, _, _ in figure.numbers} == {"p1", "p2", "p3", "p4"}


def test_many_that_were_left_out_are_counted():
    view = lineage(12, measured({"p11": [0.5] * 12, "p12": [0.6] * 12}, {"p11": [0.0], "p12": [0.0]}))
    assert (
        "Without round 1, round 2, round 3, round 4, round 5, round 6 and 4 more: not measured"
        in figures.pareto(view, nowhere).note
    )


def test_one_policy_alone_says_why_nothing_is_drawn():
    figure = figures.pareto(lineage(1, measured({"p1": [0.5]}, {"p1": [0.0]})), nowhere)
    assert (figure.drawn, "fewer than two policies" in figure.why) == (None, True)


def test_kl_back_is_drawn_as_kl_is():
    kl = {("p1", "kl/p0", "samples/v1"): sure(0.1), ("p1", "kl_back/p0", "samples/v1"): sure(0.3)}
    drawn = {figure.key: figure for figure in figures.figures(lineage(1, kl), link) if figure.key.startswith("kl")}
    assert {key: column(figure, "base, new prompts")["round 1"].value for key, figure in drawn.items()} == {
        "kl": 0.1, "kl_back": 0.3,
    }  # fmt: skip
    assert "?p1:kl_back/p0:samples/v1" in drawn["kl_back"].drawn
    assert ["KL(policy ‖ other)" in drawn["kl"].note, "KL(other ‖ policy)" in drawn["kl_back"].note] == [True, True]
