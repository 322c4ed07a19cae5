"""What is concluded from lineages: tables, figures, and what must hold."""

import numpy as np
import pytest

from workbench.bench.methods_figures import _front, draw
from workbench.bench.methods_report import behaviour_of, compliance, markdown, table
from workbench.bench.methods_verdicts import CONTROL, figures_of


def lineage(method, seed, lost):
    """A stream of two tasks: all of both is learned, then a share of the first is lost."""
    rng = np.random.default_rng([seed, len(method)])
    first, second = np.zeros((3, 200)), np.zeros((3, 200))
    first[1:] = second[2:] = 1
    first[2, rng.permutation(200)[: round(200 * lost)]] = 0
    numbers = [[None, 0.1, 0.2]] * 2
    return {
        "stream": "s", "method": method, "seed": seed, "tasks": ["a", "b"], "hits": [first.tolist(), second.tolist()],
        "chance": [[0.5] * 3] * 2, "kl_base": numbers, "kl_parent": numbers, "tokens": [[9.0] * 3] * 2,
        "distinct_2": [[0.5] * 3] * 2, "choice": [[1.0] * 500] * 2, "text_bits": [100.0, 101.0],
        "compliance": {"g": [[[1.0, 2.0]] * 3] * 2},
        "guidelines": ["", ""],
        "rounds": [{"seconds": 60.0, "scored": 10, "pairs": 5, "disk_bytes": 2_500_000, "peak_bytes": 1}] * 2,
    }  # fmt: skip


@pytest.fixture
def found():
    lost = {"plain": 0.2, "equal-replay": 0.1, "recommended": 0.02, "retrain": 0.0}
    return [lineage(method, seed, share) for method, share in lost.items() for seed in range(3)]


def test_figures_say_what_must_hold(found):
    figures = {figure.name: figure for figure in figures_of("s", found)}
    assert figures["s: forgetting of sequential DPO"].value == pytest.approx(0.2)
    assert figures["s: share of sequential DPO's forgetting"].value == pytest.approx(0.1)
    assert all(figure.verdict == "ok" for figure in figures.values())
    worse = [lineage("recommended", cell["seed"], 0.15) if cell["method"] == "recommended" else cell for cell in found]
    short = {figure.name for figure in figures_of("s", worse) if figure.verdict == "short"}
    assert short == {
        "s: share of sequential DPO's forgetting",
        "s: forgetting less half of sequential DPO's, upper bound",
        "s: forgetting less that of replay of equal size, upper bound",
        "s: Last less retraining's, lower bound",
    }


def asked(method, lost):
    """Three lineages of which the last policy loses so many of 500 questions, and no other changes."""
    cells = [lineage(method, seed, 0.02) for seed in range(3)]
    for cell in cells:
        cell["choice"] = [[1.0] * 500, [0.0] * lost + [1.0] * (500 - lost)]
    return cells


def test_a_method_that_is_better_on_both_is_named():
    # 10 of 500 lost by ours, none by the other, which also keeps all of the first task
    ours, other = asked("recommended", 25), [lineage("average", seed, 0.0) for seed in range(3)]
    (figure,) = (each for each in figures_of("s", [*ours, *other]) if "better on Last" in each.name)
    assert (figure.value, figure.verdict, figure.note) == (1, "short", "average")
    (figure,) = (each for each in figures_of("s", [*ours, *asked("average", 25)]) if "better on Last" in each.name)
    assert (figure.value, figure.verdict, figure.note) == (0, "ok", "of 1 others")


def test_the_power_of_the_questions_is_that_of_one_lineage():
    # 8 of 500 lost: 0.016 with error sqrt(0.016 * 0.984 / 499) = 0.00562: Phi(2.848 - 1.960) = Phi(0.889) = 0.813
    (figure,) = (each for each in figures_of("s", asked(CONTROL, 8)) if "chance to see" in each.name)
    assert figure.value == pytest.approx(0.813, abs=0.001)
    (figure,) = (each for each in figures_of("s", asked(CONTROL, 7)) if "chance to see" in each.name)
    assert figure.verdict == "short"


def test_figures_are_drawn_from_what_was_measured(found, tmp_path):
    files = draw("s", found, tmp_path)
    assert [file.name for file in files] == ["s-retention.svg", "s-forgetting.svg", "s-kl.svg", "s-pareto.svg"]
    heat, bars = (file.read_text(encoding="utf-8") for file in files[:2])
    assert "0.98" in heat  # recommended keeps 0.98 of the first task
    assert bars.index(">retrain<") < bars.index(">recommended<") < bars.index(">plain<")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in draw("s", found, tmp_path)] == before
    for cell in found:
        cell["choice"] = [[], []]
    assert [file.name for file in draw("s", found, tmp_path)][-1] == "s-kl.svg"


def test_the_front_is_what_nothing_beats_on_both():
    assert _front([(0.0, 0.5), (0.1, 0.4), (0.1, 0.7), (0.0, 0.5)]) == [True, False, True, True]


def test_the_table_has_every_method_with_intervals_and_costs(found):
    rows = {row["method"]: row for row in table(found)}
    assert rows["plain"]["forgetting"].startswith("20.0 [")
    assert rows["plain"]["text bits"] == "+1.0 %"
    assert (rows["plain"]["pairs"], rows["plain"]["minutes a round"]) == ("10", "1.0")
    assert (rows["plain"]["scored"], rows["plain"]["MB a child"]) == ("20", "2.5")
    text = markdown("s", found)
    assert "BWT over T-1" in text
    assert text.count("\n|") == 2 + len(rows)
    assert "- g: 1.5, 1.5, 1.5" in text
    assert compliance(found)["plain"] == {"g": [1.5, 1.5, 1.5]}
    assert "whichever method ran first" in text
    assert "No metrics of answers" not in text, "no task has a guideline"
    assert "Replaced" not in text
    assert "Replaced by a later task" in markdown("s", [{**cell, "replaced": ["a"]} for cell in found])


def answering(method, seed, kept):
    """Tasks that are guidelines; scores of eight answers to each task's prompts by policy, the base's all 0.

    The first is kept to by all after its round; the second is learned in the second, until when answers are the base's.
    """
    first, second = [[0.0] * 8, [2.0] * 8, kept * 2], [[0.0] * 8, [0.0] * 8, [2.0] * 8]
    elsewhere = [[0.0] * 8] * 3
    return lineage(method, seed, 0.0) | {
        "guidelines": ["g", "h"],
        "compliance": {"g": [first, elsewhere], "h": [elsewhere, second]},
    }


def test_answers_are_told_from_the_base_s_prompt_by_prompt(found):
    assert behaviour_of(found[:3]) is None, "tasks without a guideline"
    cells = [answering("plain", seed, [2.0, 0.0, -1.0, 2.0]) for seed in range(3)]
    runs = behaviour_of(cells)
    assert runs.hits[0][0].mean(axis=1).tolist() == [0.5, 1.0, (1 + 0.5 + 0 + 1) / 4]
    assert runs.hits[1][0].mean(axis=1).tolist() == [0.5, 0.5, 1.0]
    (row,) = table(cells)
    assert row["answers: forgetting"].startswith("37.5 [")
    assert row["answers: learned"].startswith("100.0 [")
    assert "an answer keeps to a task's guideline better" in markdown("s", cells)
    older = [{k: v for k, v in cell.items() if k != "guidelines"} | {"tasks": ["g", "h"]} for cell in cells]
    assert np.array_equal(behaviour_of(older).hits, runs.hits), "tasks were called as their guidelines"
    some = [cell | {"guidelines": ["g", ""]} for cell in cells]
    assert behaviour_of(some) is None
    assert "No metrics of answers, for no guideline judges these tasks: b." in markdown("s", some)


def test_fresh_answers_are_compared_with_none(found):
    offline = [answering("plain", seed, [2.0, 0.0, -1.0, 2.0]) for seed in range(3)]
    online = [answering("plain+online.objective=dpo+online.beta=1", seed, [2.0] * 4) for seed in range(3)]
    figures = {f.name: f for f in figures_of("s", [*offline, *online])}
    name = online[0]["method"]
    assert figures[f"s: forgotten in answers, {name} less offline, upper bound"].note.startswith("-0.38 [")
    assert f"s: Last in answers, {name} less offline, lower bound" in figures
    for other in (offline[:2], [cell | {"seed": cell["seed"] + 3} for cell in offline]):
        assert not any("answers" in f.name for f in figures_of("s", [*other, *online])), "other seeds cannot be paired"
