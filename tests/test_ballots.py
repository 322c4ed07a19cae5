"""Whose judgements count at a freeze, and how much."""

import random
from datetime import UTC, datetime

import pytest

from preference_data.errors import VersionError
from preference_data.freeze import FreezeRule, freeze
from preference_data.opinions import ADJUDICATED
from preference_data.pairs import Ballot
from preference_data.projects import Projects, ProjectSettings
from preference_data.queue import Queue
from preference_data.records import Comparison, Completion, Imported, Judgement, Pairwise, Prompt, Verdict
from preference_data.reliability import reliabilities
from preference_data.store import Entry, Store

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
FIRST, SECOND = Pairwise(Verdict.FIRST), Pairwise(Verdict.SECOND)


def compare(number):
    made = (Completion(f"yes {number}", Imported("s", "a")), Completion(f"no {number}", Imported("s", "b")))
    return Comparison(Prompt.of(f"{number * 7919}?"), made, "s")


def say(comparison, person, opinion, **more):
    return Judgement(comparison=comparison.key, annotator=person, opinion=opinion, at=NOON, **more)


@pytest.fixture
def frozen(tmp_path):
    """Freezes judgements of comparisons; the pairs, and the report."""
    with Store.open(f"sqlite:///{tmp_path}/p.db") as store:

        def make(*entries, **rule):
            store.add(entries)
            version, report = freeze(store, FreezeRule(min_pairs=0, **rule), tmp_path / "versions")
            return {pair.prompt.messages[0].content: pair for pair in version.pairs()}, report

        make.store = store
        yield make


def test_one_persons_judgements_can_be_left_out_as_if_never_given(frozen):
    one, two = compare(1), compare(2)
    entries = [
        Entry(one, (say(one, "ann", FIRST), say(one, "eve", SECOND))),
        Entry(two, (say(two, "eve", FIRST),)),
    ]
    pairs, report = frozen(*entries, without=("eve",))
    assert [(pair.chosen, pair.weight) for pair in pairs.values()] == [("yes 1", 1)]
    assert report.judgements_left_out["annotator left out"] == 2


def test_an_adjudication_takes_the_place_of_all_others(frozen):
    one = compare(1)
    said = (say(one, "ann", FIRST), say(one, "bob", FIRST), say(one, "lead", SECOND, flags=(ADJUDICATED,)))
    pairs, report = frozen(Entry(one, said))
    assert [(pair.chosen, pair.weight) for pair in pairs.values()] == [("no 1", 1)]
    assert report.judgements_left_out["adjudicated by a lead"] == 2


def test_an_adjudication_that_does_not_count_takes_no_place(frozen):
    one, two = compare(1), compare(2)
    Projects(frozen.store.engine).create("p", "pairwise", guideline="old", by="lead")
    Queue(frozen.store.engine).change(
        "p", guideline="new", settings=ProjectSettings(counts_from=2, old_weight=0), by="lead"
    )
    entries = [
        Entry(one, (say(one, "ann", FIRST), say(one, "lea", SECOND, flags=(ADJUDICATED,)))),
        Entry(two, (say(two, "ann", FIRST, guideline="p/2"),
                    say(two, "kim", SECOND, guideline="p/1", flags=(ADJUDICATED,)))),
    ]  # fmt: skip
    pairs, report = frozen(*entries, without=("lea",))
    assert sorted(pair.chosen for pair in pairs.values()) == ["yes 1", "yes 2"]
    assert dict(report.judgements_left_out) == {"annotator left out": 1, "under a guideline that was withdrawn": 1}


def test_an_adjudication_is_under_no_cap_and_no_model_of_skill(frozen):
    entries = [Entry(c, (say(c, "lea", SECOND, flags=(ADJUDICATED,)),)) for c in map(compare, range(6))]
    entries += [
        Entry(c, tuple(say(c, who, FIRST) for who in ("ann", "bob", "eve"))) for c in map(compare, range(6, 10))
    ]
    pairs, _ = frozen(*entries, annotator_cap=0.4, reliability="dawid-skene")
    assert sum(pair.chosen.startswith("no") for pair in pairs.values()) == 6


@pytest.mark.parametrize(("old_weight", "weights"), [(0.5, [0.5, 1.0]), (0.0, [1.0]), (1.0, [1.0, 1.0])])
def test_what_was_said_under_an_old_guideline_weighs_what_the_project_says(frozen, old_weight, weights):
    one, two = compare(1), compare(2)
    Projects(frozen.store.engine).create("p", "pairwise", guideline="old", by="lead")
    settings = ProjectSettings(counts_from=2, old_weight=old_weight)
    Queue(frozen.store.engine).change("p", guideline="new", settings=settings, by="lead")
    entries = [
        Entry(one, (say(one, "ann", FIRST, guideline="p/1"),)),
        Entry(two, (say(two, "ann", FIRST, guideline="p/2"),)),
    ]
    pairs, _ = frozen(*entries)
    assert sorted(pair.weight for pair in pairs.values()) == weights


def simulated(skills, items, seed=0):
    """Ballots of people who are right with a known probability."""
    rng = random.Random(seed)
    found = []
    for comparison in map(compare, range(items)):
        truth = rng.choice((FIRST, SECOND))
        wrong = SECOND if truth == FIRST else FIRST
        found += [
            Ballot(comparison, say(comparison, who, truth if rng.random() < p else wrong), "")
            for who, p in skills.items()
        ]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_how_often_people_are_right_is_found_without_knowing_what_is_right(seed):
    skills = {"ann": 0.95, "bob": 0.85, "cyd": 0.75, "dan": 0.65, "eve": 0.9}
    ballots = simulated(skills, 200, seed)
    found = reliabilities(ballots, "dawid-skene")
    # against what each was right about in this draw: the rest is chance that no estimate can see
    truth = reference(ballots, skills, seed)
    assert {who: found[who] for who in skills} == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("how", ["dawid-skene", "mace"])
def test_whoever_answers_at_random_counts_for_little_in_every_model(how):
    """Three who know (right with 0.95, so 2p - 1 = 0.9) and one who tosses a coin (0)."""
    skills = {"ann": 0.95, "bob": 0.95, "cyd": 0.95, "coin": 0.5}
    found = reliabilities(simulated(skills, 200), how)
    weights = {who: 2 * p - 1 for who, p in found.items()}
    assert all(0.8 <= weights[who] <= 1 for who in ("ann", "bob", "cyd")), weights
    assert abs(weights["coin"]) <= 0.2, weights


def reference(ballots, skills, seed):
    rng = random.Random(seed)
    right = dict.fromkeys(skills, 0)
    for _ in range(len(ballots) // len(skills)):
        rng.choice((FIRST, SECOND))
        for who, p in skills.items():
            right[who] += rng.random() < p
    return {who: count * len(skills) / len(ballots) for who, count in right.items()}


def test_people_who_shared_too_little_are_not_judged():
    assert reliabilities(simulated({"ann": 0.9, "bob": 0.9}, 9), "mace") == {}
    assert reliabilities([], "mace") == {}


def test_votes_weigh_as_much_as_their_givers_are_reliable(frozen):
    ballots = simulated({"ann": 1, "bob": 1, "cyd": 1, "coin": 0.5}, 200)
    by_comparison = {}
    for each in ballots:
        by_comparison.setdefault(each.comparison.key, (each.comparison, []))[1].append(each.judgement)
    entries = [Entry(comparison, tuple(said)) for comparison, said in by_comparison.values()]
    alike, _ = frozen(*entries)
    weighed, _ = frozen(reliability="dawid-skene")
    agreed = [text for text, pair in alike.items() if pair.weight == 1]
    contested = [text for text, pair in alike.items() if pair.weight == 0.5]
    assert len(agreed) > 60
    assert len(contested) > 60
    # three of weight 1 against a coin of weight 0.1 or less, (3 - 0.1) / 4, or alone where it is left out
    assert all(0.7 < weighed[text].weight <= 1 for text in contested)


def test_an_unknown_way_of_weighing_is_refused():
    with pytest.raises(ValueError, match="reliability: got 'gut'; expected alike, dawid-skene, mace"):
        FreezeRule(reliability="gut")


def test_a_freeze_of_nothing_left_says_what_was_left_out(frozen):
    one = compare(1)
    frozen.store.add([Entry(one, (say(one, "eve", FIRST),))])
    with pytest.raises(VersionError, match="1 annotator left out"):
        freeze(frozen.store, FreezeRule(without=("eve",)), None)
