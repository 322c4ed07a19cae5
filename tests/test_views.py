"""Drift reports: numbers worked out by hand, what they say in words, and how they print at 80 columns."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.drift_kit import (
    LATER,
    PLAIN,
    POLITE,
    PROMPTS,
    VERSIONS,
    World,
    capability,
    items,
    retention,
    samples,
    two_rounds_in,
)
from tests.small_round import write_adapter, write_base
from workbench.cli import app
from workbench.cli.drift import round_condition
from workbench.cli.render import render_report
from workbench.drift.power import smallest_share_change
from workbench.errors import PolicyError
from workbench.rounds.plan import measuring_condition, plan_digest
from workbench.views import NamedVersion, as_json, change_lines, drift_report, next_steps
from workbench.views.records import NOT_MEASURED
from workbench.views.sentences import pairs_needed
from workbench.workspace import Workspace


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def two_rounds(world):
    return two_rounds_in(world)


def printed(report, verdict=None, width=80):
    console = Console(record=True, width=width, file=io.StringIO())
    render_report(console, report, verdict)
    return console.export_text()


def test_the_lineage_and_the_whole_matrix(two_rounds):
    report = two_rounds.report()
    assert [(p.name, p.round, p.champion) for p in report.policies] == [
        ("tiny", 0, False), ("round-1", 1, False), ("round-2", 2, True)
    ]  # fmt: skip
    assert [(v.name, v.trained_in) for v in report.versions] == [("plain", 1), ("polite", 2), ("later", None)]
    values = [[cell.accuracy.value for cell in row] for row in report.cells]
    assert values == [[0.5, 0.4, None], [0.8, 0.3, None], [0.7, 0.75, None]]  # 10, 8; 16, 6; 14, 15 of 20
    assert [[cell.own for cell in row] for row in report.cells] == [
        [False] * 3, [True, False, False], [False, True, False]
    ]  # fmt: skip
    first = report.cells[1][0]
    assert first.above_base.value == pytest.approx(0.65)  # 6 of 20 margins rose, 14 ties count half
    assert first.margin.value == pytest.approx(0.6)  # (16 - 4) / 20
    assert first.margin_per_token.value == pytest.approx(0.15)
    assert first.chosen_change.value == pytest.approx(0.6)  # 6 of 20 rose by 2 nats
    assert report.cells[0][0].above_base == NOT_MEASURED
    assert first.by_answer == {}


def test_changes_flips_and_averages_by_hand(two_rounds):
    report = two_rounds.report()
    found = {(c.round, report.versions[c.version].name): c for c in report.changes}
    own = found[1, "plain"]
    assert (own.kind, own.from_parent.value) == ("own", pytest.approx(0.3))
    assert (own.flips.gained, own.flips.lost, own.flips.p) == (6, 0, pytest.approx(2 * 0.5**6))
    assert (found[2, "plain"].kind, found[2, "plain"].from_parent.value) == ("earlier", pytest.approx(-0.1))
    assert found[2, "plain"].from_base.value == pytest.approx(0.2)
    assert found[1, "polite"].kind == found[2, "later"].kind == "untrained"
    # Of twenty pairs the parent had the first sixteen right, all by the same margin; the last two of them turned.
    assert [one.value for one in found[2, "plain"].lost_by_quartile] == [0, 0, 0, 2 / 5]
    assert [one.n for one in found[1, "plain"].lost_by_quartile] == [5] * 4
    assert found[2, "later"].lost_by_quartile == ()
    averages = {a.name: a.value.value for a in report.averages}
    assert averages == {
        "BWT": pytest.approx(-0.1),  # R[2,1] - R[1,1]
        "forgetting": pytest.approx(0.1),
        "FWT": pytest.approx(-0.1),  # R[1,2] - R[0,2] = 0.3 - 0.4
        "Last": pytest.approx(0.725),
        "AP": pytest.approx((0.8 + 0.725) / 2),
    }
    assert all(a.convention for a in report.averages)


def test_taxes_by_hand(two_rounds):
    found = {(t.name, t.round): t for t in two_rounds.report().taxes}
    assert set(found) == {(suite, t) for suite in ("choice", "text") for t in (0, 1, 2)}
    assert found["choice", 2].level.value == 19 / 40
    assert found["choice", 2].tax.value == pytest.approx(1 / 40)
    assert found["choice", 2].step_tax.value == pytest.approx(-1 / 40)  # 19 right after 18: gained
    assert found["choice", 2].flips[:2] == (1, 0)
    assert found["text", 1].level.value == pytest.approx(2.05)  # 820 bits over 400 bytes
    assert found["text", 1].tax.value == pytest.approx(0.025)  # 20 of 800 bits
    assert found["text", 2].step_tax.value == pytest.approx(-10 / 820)
    assert found["choice", 0].tax == found["choice", 0].step_tax == NOT_MEASURED


def test_kl_to_base_parent_and_anchors_on_new_and_old_prompts(two_rounds):
    divergences = two_rounds.report().divergences
    found = {(d.round, d.roles, d.prompts): d.value.value for d in divergences}
    assert [d.back.value for d in divergences] == pytest.approx([2 * value for value in found.values()])
    shown = " ".join(printed(two_rounds.report(), width=120).split())
    assert "0.200 [0.200, 0.200] n=6 back 0.400 [0.400, 0.400]" in shown
    assert found == {
        (1, ("base", "parent", "anchor 1.00"), "new"): pytest.approx(0.1),
        (2, ("base", "anchor 0.50"), "new"): pytest.approx(0.3),
        (2, ("base", "anchor 0.50"), "old"): pytest.approx(0.3),
        (2, ("parent", "anchor 0.50"), "new"): pytest.approx(0.2),
        (2, ("parent", "anchor 0.50"), "old"): pytest.approx(0.2),
    }


def test_answers_by_hand(two_rounds):
    report = two_rounds.report()
    found = {(a.round, report.versions[a.version].name): a for a in report.answers}
    assert (0, "later") not in found
    assert (1, "polite") not in found
    first = found[1, "plain"]
    assert (first.prompts, found[2, "plain"].prompts, found[0, "plain"].prompts) == ("new", "old", "untrained")
    assert (first.length.value, first.length_change.value) == (8.0, -2.0)
    # 5 times "one two", once three pairs of words: 4 distinct of 8
    assert first.distinct_2.value == pytest.approx(0.5)
    assert (first.finished.value, first.refused.value) == (1.0, 0.0)
    [nominal] = first.compliance
    assert nominal.guideline == "nominal"
    assert nominal.value.value == pytest.approx((5 * 0.5 + 1.0) / 6)
    assert nominal.change.value == pytest.approx(-2.5 / 6)  # five answers lost two words of four
    rates = {(r.round, r.label): r.rate.value for r in report.refusals}
    assert rates[2, "safe"] == pytest.approx(0.4)  # two of five
    assert rates[2, "unsafe"] == 0


def test_examples_are_the_first_whose_answers_differ(two_rounds):
    plain = [e for e in two_rounds.report().examples if e.version == 0]
    assert [e.item for e in plain] == ["000", "001"]
    assert plain[0].prompt == "prompt 0 of a"
    assert [(s.round, s.text) for s in plain[0].answers] == [(0, "one two three four"), (1, "one two"), (2, "a b c")]


def test_accuracy_per_answer_where_answers_are_few(world):
    answers = ["Yes"] * 10 + ["No"] * 10
    world.record(world.base, retention(PLAIN, 10, answers=answers), condition="k")
    assert {k: v.value for k, v in world.report().cells[0][0].by_answer.items()} == {"No": 0.0, "Yes": 1.0}
    assert "Yes" in printed(world.report())


def test_json_is_plain_and_has_no_nan(two_rounds):
    text = json.dumps(as_json(two_rounds.report()), allow_nan=False)
    assert json.loads(text)["cells"][1][0]["accuracy"]["value"] == 0.8
    assert json.loads(text)["changes"][3]["lost_by_quartile"][3]["value"] == 0.4
    assert json.loads(text)["divergences"][0]["back"]["n"] == 6
    assert as_json({"a": (float("nan"), 1.5)}) == {"a": [None, 1.5]}


def test_what_was_not_measured_has_no_number(two_rounds):
    report = two_rounds.report(condition="another")
    assert {cell.accuracy.value for row in report.cells for cell in row} == {None}
    assert {average.value.value for average in report.averages} == {None}
    assert (report.taxes, report.answers, report.examples) == ((), (), ())
    assert {d.value for d in report.divergences} == {NOT_MEASURED}


def test_the_condition_is_that_of_the_last_round(two_rounds):
    two_rounds.record(two_rounds.second, items("choice", "correct", [1] * 9), condition="zzz")
    assert two_rounds.report().condition == two_rounds.condition
    records = {r.digest: r for r in two_rounds.ws.journal.rounds()}
    plan = two_rounds.second_plan
    assert round_condition(records[plan_digest(plan)]) == measuring_condition(plan) == two_rounds.condition


def test_an_unknown_policy_is_named(world):
    with pytest.raises(PolicyError, match="gone"):
        world.report("gone")


def test_sentences_say_gained_lost_or_chance(two_rounds):
    lines = change_lines(two_rounds.report())
    assert lines[0].startswith("round 1 gained 0.30 [")
    assert "on 'plain', its own version: 6 wrong -> right, 0 right -> wrong (McNemar p = 0.031)" in lines[0]
    assert lines[1].startswith("round 2 changed by -0.10 [")
    assert "which may be chance, on 'plain', an earlier version: 0 wrong -> right, 2 right -> wrong" in lines[1]
    assert len(lines) == 3


def test_pairs_needed_is_where_the_change_becomes_visible():
    needed = pairs_needed(0.1)
    assert smallest_share_change(needed) <= 0.1 < smallest_share_change(needed - 1)
    assert pairs_needed(1e-4) is None


def test_a_promoted_policy_goes_on_to_generate(two_rounds):
    assert two_rounds.second_verdict.passed
    steps = next_steps(two_rounds.report(), two_rounds.second_verdict.as_json())
    assert "workbench generate" in steps[0]
    assert any("'plain' has 20 test pairs" in step for step in steps)
    [onward] = next_steps(two_rounds.report(), None)
    assert onward.startswith("let it answer new prompts")


def test_where_every_round_was_rejected_the_newest_one_is_pointed_at_instead_of_a_first(world):
    assert "workbench" in next_steps(world.report(), None)[0]
    newest = ("the newest round was rejected; see why: `workbench drift round-1`",)
    assert next_steps(world.report(), None, elsewhere=newest) == newest


def test_a_gap_of_the_matrix_is_named(two_rounds):
    plan = two_rounds.plan(two_rounds.second, LATER)
    child = two_rounds.child(plan, 3.0)
    two_rounds.record(child, retention(LATER, 12))
    gap, _ = next_steps(two_rounds.report(child.digest), None)
    assert gap.endswith("`workbench evaluate tiny --settings FILE`")


def test_a_gain_that_may_be_chance_asks_for_pairs(world):
    plan = world.plan(world.base, PLAIN)
    world.condition = measuring_condition(plan)
    child = world.child(plan, 1.0)
    world.record(world.base, retention(PLAIN, 10), capability(20, 800))
    world.record(child, retention(PLAIN, 12), capability(20, 800))
    kl = [(world.base.digest, 0.1)]
    world.record(child, samples(PLAIN, tokens=[5] * PROMPTS, texts=["a b"] * PROMPTS, kl=kl))
    verdict = world.finish(plan, child)
    steps = next_steps(world.report(child.digest), verdict.as_json())
    # 2 of 20 flipped: with a tenth of the pairs flipping, a change of 0.1 shows from this many on
    assert f"collect {pairs_needed(0.1, 0.1) - 20} more test pairs (it has 20)" in steps[0]


def test_a_round_that_replaces_a_version_says_so(two_rounds):
    plan = two_rounds.plan(two_rounds.second, LATER, update=True)
    child = two_rounds.child(plan, 3.0)
    two_rounds.record(child, retention(POLITE, 2), retention(PLAIN, 14))
    kinds = {two_rounds.report(child.digest).versions[c.version].name: c.kind
             for c in two_rounds.report(child.digest).changes if c.round == 3}  # fmt: skip
    assert kinds == {"plain": "earlier", "polite": "replaced", "later": "own"}
    left_out = {one.name for one in two_rounds.report(child.digest).averages if "replaced" in one.convention}
    assert left_out == {"BWT", "forgetting", "Last"}


def test_a_version_trained_twice_has_two_columns_and_one_line(two_rounds):
    plan = two_rounds.plan(two_rounds.second, PLAIN)
    child = two_rounds.child(plan, 3.0)
    two_rounds.record(child, retention(PLAIN, 18), retention(POLITE, 15))
    report = two_rounds.report(child.digest)
    assert [v.name for v in report.versions] == ["plain", "polite", "plain", "later"]
    assert [cell.own for cell in report.cells[3]] == [True, False, True, False]
    assert [report.versions[c.version].name for c in report.changes if c.round == 3] == ["plain", "polite", "later"]
    # R[3,1] - R[1,1] = 0.9 - 0.8 and R[3,2] - R[2,2] = 0
    assert report.averages[0].value.value == pytest.approx(0.05)


def test_an_adopted_policy_of_unknown_data_has_no_numbers(two_rounds):
    folder = write_adapter(two_rounds.ws.root / "made elsewhere", fill=9.0, base_model_name_or_path="")
    adopted = two_rounds.ws.adopt(folder, parent="round-2", name="bought")
    report = two_rounds.report(adopted.digest)
    assert report.versions[2].name == "unknown"
    assert report.condition == two_rounds.condition
    assert "Drift of bought over 3 rounds" in printed(report)


@pytest.fixture
def rejected(two_rounds):
    """A third round that learns nothing, forgets, and pays."""
    plan = two_rounds.plan(two_rounds.second, LATER, gate={"max_tax": 0.01})
    child = two_rounds.child(plan, 3.0)
    two_rounds.record(two_rounds.second, retention(LATER, 10))
    two_rounds.record(child, retention(PLAIN, 2), retention(POLITE, 15), retention(LATER, 10), capability(5, 900))
    kl = [(two_rounds.base.digest, 3.0), (two_rounds.second.digest, 0.2)]
    two_rounds.record(child, samples(LATER, tokens=[5] * PROMPTS, texts=["a b"] * PROMPTS, kl=kl))
    two_rounds.verdict = two_rounds.finish(plan, child)
    two_rounds.third = child
    return two_rounds


def test_a_rejected_round_has_its_own_lineage_and_advice(rejected):
    assert {c.name.partition("/")[0] for c in rejected.verdict.failures} == {"gain", "retention", "tax", "kl"}
    report = rejected.report("round-3")
    assert [p.name for p in report.policies] == ["tiny", "round-1", "round-2", "round-3"]
    steps = next_steps(report, rejected.verdict.as_json())
    text = "\n".join(steps)
    assert "it moved without learning" in text
    assert "'plain' was lost" in text
    assert "choice and text fell" in text
    assert "raise gate.max_kl_base" in text
    assert steps[-1].startswith("or take it anyway: `workbench promote round-3")
    assert [p.name for p in rejected.report().policies][-1] == "round-2"


def test_it_prints_within_80_columns(rejected):
    text = printed(rejected.report("round-3"), rejected.verdict)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "Drift of round-3 over 3 rounds" in lines
    assert any(
        line.startswith("round 1") and line.split()[2:] == ["0.80*", "0.30", "not", "measured"] for line in lines
    )
    assert any(line.startswith("FAIL") and "gain: no gain seen" in line for line in lines)
    [third] = [line for line in lines if "37.5" in line]  # 20 right, then 5, of 40
    assert third.split()[3:6] == ["+37.5", "[19.8,", "51.6]"]
    assert third.split()[-3:] == ["-15", "+0", "0.00"]
    wide = printed(rejected.report("round-3"), rejected.verdict.as_json(), width=160)
    assert any(line.startswith("- round 3 lost 0.60 [") for line in wide.splitlines())
    assert "- round 1" not in wide  # in full from round 2
    assert "In full: rounds from 2" in wide
    assert wide.count("round 1 ") >= 3  # lineage, matrix and tax have all


def test_answers_stand_below_each_other_newest_version_first(two_rounds):
    lines = [line.rstrip() for line in printed(two_rounds.report(), two_rounds.second_verdict).splitlines()]
    start = lines.index("Before and after")
    assert lines[start + 1 : start + 9] == [
        "prompt    prompt 0 of b ('polite')", "base      one two three four", "round 2   a b", "",
        "prompt    prompt 0 of a ('plain')", "base      one two three four", "round 1   one two", "round 2   a b c",
    ]  # fmt: skip


def test_what_people_wrote_is_never_read_as_markup(world):
    plan = world.plan(world.base, PLAIN)
    world.condition = measuring_condition(plan)
    child = world.child(plan, 1.0)
    world.record(world.base, samples(PLAIN, tokens=[5] * PROMPTS, texts=["[bold]no[/bold]"] * PROMPTS))
    world.record(child, samples(PLAIN, tokens=[5] * PROMPTS, texts=["[/red] ok\x1b[2J"] * PROMPTS))
    text = printed(world.report(child.digest))
    assert "[bold]no[/bold]" in text
    assert "[/red] ok\ufffd[2J" in text


def test_many_versions_continue_below(two_rounds):
    more = [NamedVersion(f"v{i}", f"{i:064d}") for i in range(9)]
    report = drift_report(two_rounds.ws.registry, two_rounds.ws.ledger, [*VERSIONS, *more])
    lines = printed(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("policy") and "prompts" not in line for line in lines) >= 3


def run(ws, *arguments):
    return CliRunner().invoke(app, ["drift", *arguments, "-w", str(ws.root)], env={"COLUMNS": "80"})


def test_the_verb_prints_the_report_and_its_rows(rejected):
    shown = run(rejected.ws)
    assert shown.exit_code == 0, shown.output
    assert "Drift of round-2 over 2 rounds" in shown.output
    assert "Gate: round-2 passed" in shown.output
    assert "workbench drift round-3" in " ".join(shown.output.split())
    found = json.loads(run(rejected.ws, "round-3", "--json").output)
    assert found["verdict"]["passed"] is False
    assert found["report"]["policies"][-1]["name"] == "round-3"
    rows = [json.loads(line) for line in run(rejected.ws, "--rows", "retention/plain/margin").output.splitlines()]
    assert [r["value"] for r in rows] == [1.0] * 14 + [-1.0] * 6
    again = run(rejected.ws, "--rows", f"samples/{PLAIN}/kl/{rejected.base.digest}").output
    assert again == run(rejected.ws, "--rows", "samples/plain/kl/tiny").output
    assert [json.loads(line)["value"] for line in again.splitlines()] == pytest.approx([1.8] * 6)
    wrong = run(rejected.ws, "--rows", "nothing/here")
    assert wrong.exit_code == 1
    assert "text/bits" in wrong.output


def test_a_workspace_without_rounds_says_what_to_do(world, tmp_path):
    shown = run(world.ws)
    assert shown.exit_code == 0
    assert "Nothing has been measured" in shown.output
    assert "workbench plan --version later" in " ".join(shown.output.split())
    empty = Workspace.init(tmp_path / "empty", base=write_base(tmp_path / "other"), name="bare")
    assert "workbench import FILE" in run(empty).output
    assert json.loads(run(empty, "--json").output)["report"]["cells"] == [[]]
