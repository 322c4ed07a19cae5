"""Measurements and cached scores: added once, never changed, all there when opened again."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.drift.ledger import Ledger, Measured
from workbench.errors import NumericsError
from workbench.schema import open_ledger
from workbench.scoring.cache import LOOKUP, Score, ScoreCache
from workbench.tasks import Item


@pytest.fixture
def engine(tmp_path):
    return open_ledger(f"sqlite:///{tmp_path}/ledger.db")


@pytest.fixture
def ledger(engine):
    return Ledger(engine)


def item(name, value=1.0, **values):
    facts = {"suite": "choice", "item": name, "metric": "correct", "value": value, "group": "g", "slices": {},
             "detail": {}}  # fmt: skip
    return Item(**facts | values)


def test_items_come_back_as_they_went_in(ledger, engine):
    measured = [
        item(
            "b", 0.1 + 0.2, slices={"language": "français"}, detail={"text": "line\n\u2028\ud800", "options": [1, None]}
        ),
        item("a", -1e-300),
    ]
    assert ledger.record("p", "fp32", measured) == 2
    assert Ledger(engine).items("p", "choice", "correct", "fp32") == measured[::-1]


def test_recording_again_adds_nothing_and_the_first_value_stays(ledger):
    ledger.record("p", "fp32", [item("a", 1.0)])
    assert ledger.record("p", "fp32", [item("a", 0.5), item("b", 0.5), item("b", 0.7)]) == 1
    assert ledger.values(["p"], "choice", "correct", "fp32") == {"p": {"a": 1.0, "b": 0.5}}
    assert ledger.record("p", "fp32", []) == 0


def test_policies_are_compared_under_one_numerics_only(ledger):
    ledger.record("p", "fp32", [item("a", 1.0), item("a", 2.0, metric="margin")])
    ledger.record("p", "bf16", [item("a", 0.9)])
    ledger.record("q", "fp32", [item("a", 0.0), item("a", 5.0, suite="text")])
    assert ledger.values(["p", "q", "r"], "choice", "correct", "fp32") == {"p": {"a": 1.0}, "q": {"a": 0.0}, "r": {}}
    assert ledger.suites("p") == [
        Measured("choice", "correct", "bf16"), Measured("choice", "correct", "fp32"),
        Measured("choice", "margin", "fp32"),
    ]  # fmt: skip
    assert ledger.has("q", "text", "fp32")
    assert not ledger.has("q", "text", "bf16")
    assert not ledger.has("p", "text", "fp32")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused_with_its_item(ledger, engine, value):
    with pytest.raises(NumericsError, match=rf"choice, item b, correct: got {value}, expected a finite number"):
        ledger.record("p", "fp32", [item("a"), item("b", value)])
    assert not ledger.has("p", "choice", "fp32")
    cache = ScoreCache(engine)
    with pytest.raises(NumericsError, match=f"example bad under policy p: got {value}"):
        cache.put("p", "fp32", {"good": Score(-1.0, 2), "bad": Score(value, 2)})
    assert cache.get("p", "fp32", ["good", "bad"]) == {}


def test_scores_are_per_policy_and_numerics_and_the_first_stays(engine):
    cache = ScoreCache(engine)
    cache.put("p", "fp32", {"a": Score(-1.25, 3), "b": Score(-2.5, 4)})
    cache.put("p", "fp32", {"a": Score(-9.0, 9)})
    cache.put("p", "fp32", {})
    assert cache.get("p", "fp32", ["b", "a", "a", "c"]) == {"a": Score(-1.25, 3), "b": Score(-2.5, 4)}
    assert cache.get("p", "bf16", ["a"]) == cache.get("q", "fp32", ["a"]) == cache.get("p", "fp32", []) == {}


def test_more_examples_than_one_statement_takes(engine):
    scores = {f"e{i}": Score(-float(i), i) for i in range(2 * LOOKUP + 1)}
    cache = ScoreCache(engine)
    cache.put("p", "fp32", scores)
    assert cache.get("p", "fp32", list(scores)) == scores


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.dictionaries(st.sampled_from("abcde"), st.floats(-10, 0), max_size=5), max_size=4))
def test_the_cache_is_a_dict_that_keeps_its_first_values(engine, batches):
    cache, policy = ScoreCache(engine), str(batches)
    model = {}
    for batch in batches:
        cache.put(policy, "fp32", {k: Score(v, 1) for k, v in batch.items()})
        model = {k: Score(v, 1) for k, v in batch.items()} | model
        assert cache.get(policy, "fp32", list("abcde")) == model
