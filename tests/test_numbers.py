"""Numbers kept for the dashboard: equal to the report's, which test_views holds to values worked out by hand."""

import sqlite3

import pytest

from tests.drift_kit import LATER, PLAIN, POLITE, World, capability, items, retention, two_rounds_in
from workbench.drift.uncertainty import format_estimate
from workbench.reports.document import html_report, markdown_report
from workbench.reports.story import as_report
from workbench.views import averages as averages_module
from workbench.views import kept as kept_module
from workbench.views.averages import averages_of
from workbench.views.inspection import Inspection
from workbench.views.kept import Numbers
from workbench.views.rows import Wanted, find_rows


@pytest.fixture
def two_rounds(tmp_path):
    return two_rounds_in(World(tmp_path))


def overview(world, policy="champion", **options):
    return Inspection(world.ws).overview(policy, **options)


def test_kept_numbers_are_those_of_the_report(two_rounds):
    report, view = two_rounds.report(), overview(two_rounds)
    assert (view.policies, view.versions, view.condition) == (report.policies, report.versions, report.condition)
    for policy, row in zip(report.policies, report.cells, strict=True):
        for cell in row:
            suite = f"retention/{report.versions[cell.version].digest}"
            assert view.number(policy.digest, "accuracy", suite) == cell.accuracy
    for one in report.changes:
        suite, digest = f"retention/{report.versions[one.version].digest}", report.policies[one.round].digest
        if one.from_parent.n:
            assert view.number(digest, "from parent", suite) == one.from_parent
            assert view.number(digest, "from base", suite) == one.from_base
    for one in report.taxes:
        digest = report.policies[one.round].digest
        assert view.number(digest, "level", one.suite) == one.level
        assert view.number(digest, "tax", one.suite) == one.tax
        assert view.number(digest, "step tax", one.suite) == one.step_tax
    for one in report.divergences:
        suite = f"samples/{report.versions[one.version].digest}"
        assert view.number(report.policies[one.round].digest, f"kl/{one.other}", suite) == one.value
        assert view.number(report.policies[one.round].digest, f"kl_back/{one.other}", suite) == one.back
    for one in report.answers:
        suite, digest = f"samples/{report.versions[one.version].digest}", report.policies[one.round].digest
        assert view.number(digest, "length", suite) == one.length
        assert view.number(digest, "distinct-2", suite) == one.distinct_2
        assert view.number(digest, "refused", suite) == one.refused


def test_kept_refusals_are_those_of_the_report(two_rounds):
    report, view = two_rounds.report(), overview(two_rounds)
    assert len(report.refusals) == 6  # two kinds of three policies
    for one in report.refusals:
        assert view.number(report.policies[one.round].digest, f"refused {one.label}", "refusal") == one.rate


def test_numbers_that_are_not_drawn_are_kept_all_the_same(two_rounds):
    report, view = two_rounds.report(), overview(two_rounds)
    kept = Numbers(two_rounds.ws.engine, view.condition).read(
        [p.digest for p in view.policies], ["above base", "margin"]
    )
    for policy, row in zip(report.policies, report.cells, strict=True):
        for cell in row:
            suite = f"retention/{report.versions[cell.version].digest}"
            if cell.accuracy.n and policy.round:
                assert kept[policy.digest, "above base", suite] == cell.above_base
                assert kept[policy.digest, "margin", suite] == cell.margin


def test_what_turned_is_counted_against_the_parent(two_rounds):
    view = overview(two_rounds)
    # Round 2 on `plain`: 16 right before, 14 now, the first 14 the same; on `polite`: 6 before, 15 now.
    assert view.number(two_rounds.second.digest, "lost", f"retention/{PLAIN}").value == pytest.approx(2 / 20)
    assert view.number(two_rounds.second.digest, "gained", f"retention/{PLAIN}").value == 0
    assert view.number(two_rounds.second.digest, "gained", f"retention/{POLITE}").value == pytest.approx(9 / 20)
    quarters = [view.number(two_rounds.second.digest, f"lost quartile {k}", f"retention/{PLAIN}") for k in (1, 2, 3, 4)]
    assert tuple(quarters) == two_rounds.report().changes[3].lost_by_quartile


def test_overconfidence_is_probability_minus_share_right(two_rounds):
    # Margins are 1 or -1. Round 1 on `plain` moved 6 of 20 by +2 nats and 14 by 0: sigma(2) = 0.8808, sigma(0) = 0.5.
    found = overview(two_rounds).number(two_rounds.first.digest, "overconfident", f"retention/{PLAIN}")
    assert found.value == pytest.approx(6 * (0.880797 - 1) / 20, abs=1e-6)


def test_accuracy_counted_by_hand_from_the_database(two_rounds):
    view = overview(two_rounds)
    with sqlite3.connect(two_rounds.ws.root / "ledger.db") as ledger:
        counted = ledger.execute(
            "SELECT policy, suite, avg(value > 0) FROM measurement WHERE metric = 'margin' GROUP BY policy, suite"
        ).fetchall()
    assert len(counted) == 6
    for policy, suite, share in counted:
        assert view.number(policy, "accuracy", suite).value == pytest.approx(share)


def test_the_lineage_in_words_says_what_the_report_says(two_rounds):
    from workbench.views import change_lines, next_steps

    report, light = two_rounds.report(), as_report(overview(two_rounds))
    assert change_lines(light) == change_lines(report)
    verdict = two_rounds.second_verdict.as_json()
    assert next_steps(light, verdict) == next_steps(report, verdict)


def test_numbers_are_computed_once_and_again_after_a_measurement(two_rounds):
    ws, numbers = two_rounds.ws, Numbers(two_rounds.ws.engine, two_rounds.condition)
    lineage = [p.digest for p in ws.registry.lineage(two_rounds.second.digest)]
    assert [numbers.keep(lineage), numbers.keep(lineage)] == [3, 0]
    two_rounds.record(two_rounds.second, retention(LATER, 9))
    assert numbers.keep(lineage) == 1
    found = numbers.read(lineage, ["accuracy"])
    assert found[two_rounds.second.digest, "accuracy", f"retention/{LATER}"].value == 9 / 20
    # A base measured later on what its children were measured on changes what they are compared to.
    two_rounds.record(two_rounds.base, retention(LATER, 10))
    assert numbers.keep(lineage) == 2


def test_computing_numbers_otherwise_computes_kept_ones_anew(two_rounds, monkeypatch):
    numbers = Numbers(two_rounds.ws.engine, two_rounds.condition)
    lineage = [p.digest for p in two_rounds.ws.registry.lineage(two_rounds.second.digest)]
    numbers.keep(lineage)
    monkeypatch.setattr(kept_module, "MADE", kept_module.MADE + 1)
    assert numbers.keep(lineage) == 3


def test_a_slice_has_numbers_of_its_own(tmp_path):
    world = World(tmp_path)
    plan = world.plan(world.base, PLAIN)
    child = world.child(plan, 1.0)
    from workbench.rounds.plan import measuring_condition

    world.condition = measuring_condition(plan)
    slices = [{"language": "de" if i < 8 else "fr", "id": str(i)} for i in range(20)] + [{"language": "it"}] * 2
    before = items(f"retention/{PLAIN}", "margin", [-1.0] * 22, slices=slices)
    after = items(f"retention/{PLAIN}", "margin", [1.0] * 6 + [-1.0] * 16, slices=slices)
    world.record(world.base, before)
    world.record(child, after)
    world.finish(plan, child)
    suite = f"retention/{PLAIN}"
    german = overview(world, child.digest, within="language=de")
    assert german.number(child.digest, "accuracy", suite).value == 6 / 8
    assert german.number(child.digest, "from parent", suite).value == 6 / 8
    assert overview(world, child.digest, within="language=fr").number(child.digest, "accuracy", suite).value == 0
    # Two Italian pairs are too few to be looked at alone, and ids are no slice.
    assert german.slices == ("language=de", "language=fr")
    wanted = Wanted(child.digest, world.base.digest, "accuracy", suite, world.condition, within="language=de")
    assert find_rows(world.ws, wanted).counts == {"lost": 0, "gained": 6, "same": 2, "new": 0}


@pytest.mark.parametrize("whole", [30, 0])
def test_averages_are_those_of_the_report(two_rounds, monkeypatch, whole):
    monkeypatch.setattr(averages_module, "WHOLE", whole)
    found = {one.name: one for one in averages_of(overview(two_rounds), two_rounds.ws.ledger)}
    for one in two_rounds.report().averages:
        if whole or one.name != "AP":
            assert found[one.name] == one
    assert whole or found["AP"].value == (
        None,
        None,
        None,
        0,
        "not computed here beyond 0 rounds; `workbench drift` does",
    )


def test_rows_that_turned_for_the_worse_come_first(two_rounds):
    second, first = two_rounds.second.digest, two_rounds.first.digest
    wanted = Wanted(second, first, "accuracy", f"retention/{PLAIN}", two_rounds.condition)
    found = find_rows(two_rounds.ws, wanted)
    assert found.counts == {"lost": 2, "gained": 0, "same": 18, "new": 0}
    assert [(row.item, row.turn, row.before, row.now) for row in found.rows[:2]] == [
        ("014", "lost", 1.0, -1.0), ("015", "lost", 1.0, -1.0)
    ]  # fmt: skip
    assert find_rows(two_rounds.ws, wanted._replace(turn="lost")).total == 2
    page = find_rows(two_rounds.ws, wanted, start=2, count=3)
    assert (page.total, len(page.rows), {row.turn for row in page.rows}) == (20, 3, {"same"})


def test_rows_of_a_text_suite_turn_by_bits_and_of_answers_show_both(two_rounds):
    second, base = two_rounds.second.digest, two_rounds.base.digest
    tax = find_rows(two_rounds.ws, Wanted(second, base, "tax", "text/f00df00df00d", two_rounds.condition))
    assert tax.counts["lost"] == 10  # 810 bits after, 800 before
    said = find_rows(two_rounds.ws, Wanted(second, base, "length", f"samples/{PLAIN}", two_rounds.condition)).rows[0]
    assert said.texts["answer now"] == "a b c"
    assert said.texts["answer before"].startswith(("one two", "five six"))


def test_the_report_is_one_file_that_asks_nobody(two_rounds):
    found = html_report(two_rounds.ws, "champion")
    assert "http" not in found.replace("http-equiv", "")
    assert "<script" not in found
    assert found.count("<svg") >= 8
    assert "retention: plain" in found
    assert len(found) < 5_000_000


def test_the_report_shows_hostile_names_as_text(tmp_path):
    world = World(tmp_path)
    hostile = "<img src=x onerror=alert(1)>"
    world.ws.versions.add(hostile, "d" * 64)
    plan = world.plan(world.base, "d" * 64)
    child = world.child(plan, 1.0)
    from workbench.rounds.plan import measuring_condition

    world.condition = measuring_condition(plan)
    for policy, count in ((world.base, 10), (child, 16)):
        world.record(policy, retention("d" * 64, count), capability(20, 800))
    world.finish(plan, child)
    for made in (html_report, markdown_report):
        found = made(world.ws, child.digest)
        assert "<img" not in found
        assert "onerror" in found


def test_the_report_of_a_base_and_of_nothing_measured_says_so(tmp_path):
    world = World(tmp_path)
    found = html_report(world.ws, "base")
    assert "not enough data yet" in found
    assert "0 rounds from tiny" in found
    assert "What to do next" in markdown_report(world.ws, "base")


def section(report, title):
    """Lines of a report below a heading, to the next."""
    return report.partition(f"# {title}\n")[2].partition("\n#")[0].splitlines()


def test_the_report_as_text_has_every_number_with_its_interval_and_n(two_rounds):
    found = markdown_report(two_rounds.ws, "champion")
    suite, second = f"retention/{PLAIN}", two_rounds.second.digest
    view = overview(two_rounds)
    fell, still = view.number(second, "from parent", suite), view.number(second, "accuracy", suite)
    rows = section(found, "What round 2 gained and forgot")
    assert f"| plain | {format_estimate(fell, digits=3)} |" in rows
    assert "|  | change of accuracy |" in rows
    kl = section(found, "How far it moved: KL on its own answers")
    assert kl[3].startswith("| nats per token | base, new prompts | base, old prompts | parent, new prompts |")
    assert kl[6].startswith("| round 2 | 0.300 [0.300, 0.300] n=6 | 0.300 [0.300, 0.300] n=6 | 0.200 [")
    back = section(found, "How far from there to it: KL back, on its own answers")
    assert back[6].startswith("| round 2 | 0.600 [0.600, 0.600] n=6 | 0.600 [0.600, 0.600] n=6 | 0.400 [")
    pareto = section(found, "Gain against tax, policy by policy")
    assert "|  | tax in points | accuracy |" in pareto
    # The matrix has them, too: 14 of 20 right.
    (row,) = (line for line in section(found, "Retention and tax") if line.startswith("| plain |"))
    assert f"| {format_estimate(still.scaled(100), digits=1)}" in row
    assert row.endswith("n=20 |")
    for one in (line for line in found.splitlines() if line.startswith("### ")):
        assert section(found, one.removeprefix("### "))[1], one
    assert "Not measured. `workbench evaluate" in found  # a figure without numbers says why


def test_the_report_as_text_ends_with_the_plan(two_rounds):
    from workbench.reports.document import plan_text
    from workbench.reports.figures import nowhere
    from workbench.reports.story import story

    plan = plan_text(story(Inspection(two_rounds.ws), overview(two_rounds), nowhere))
    assert f'version = "{POLITE}"' in plan
    assert markdown_report(two_rounds.ws, "champion").endswith(f"## The plan of this round\n\n```toml\n{plan}```\n")
    assert "## The plan" not in markdown_report(two_rounds.ws, "base")


def test_the_reports_show_the_pairs_that_fell_and_nothing_of_them_is_markup(tmp_path):
    from preference_data.records import Pair, Prompt
    from preference_data.versions import write_version
    from workbench.rounds.plan import measuring_condition

    world = World(tmp_path)
    hostile = "![x](https://elsewhere.example/x.png)\r\r| <img src=x> \\| `a"
    pairs = [Pair(Prompt.of(f"question {i}"), hostile, f"worse {i}", 1.0, None, (), {}, "test") for i in range(6)]
    version = write_version(pairs, world.ws.versions.directory, rule={}, watermark=0, head="").digest
    world.ws.versions.add("old", version)
    parent = world.base
    for trained, values in ((version, [1.0] * 6), (POLITE, [1.0] * 5 + [-1.0])):
        plan = world.plan(parent, trained)
        world.condition = measuring_condition(plan)
        child = world.child(plan, values[-1])
        rows = items(f"retention/{version}", "margin", values)
        world.record(child, [row._replace(item=pair.key) for row, pair in zip(rows, pairs, strict=True)])
        world.finish(plan, child)
        parent = child
    assert "question 5" in html_report(world.ws, parent.digest)
    found = markdown_report(world.ws, parent.digest)
    blank, head, _, row, *rest = [*section(found, "Pairs it gets wrong now and got right before"), "", ""]
    assert (blank, head, rest[0]) == ("", "| version | prompt | preferred | not preferred |", "")
    assert row == (
        "| old | user: question 5 | ![x]\\(https://elsewhere.example/x.png)  \\| &lt;img src=x&gt; \\\\\\| `a | worse 5 |"
    )
