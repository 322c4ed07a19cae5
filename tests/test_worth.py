"""What is worth asking: by hand, and with the share that stays random."""

import math

import pytest

from preference_data.asking import Strategy, ask
from preference_data.projects import ProjectSettings
from preference_data.records import Comparison, Completion, Imported, Prompt
from preference_data.store import Entry, Store
from tests.drift_kit import LATER, World, retention, two_rounds_in
from tests.test_drift_page import frozen_version
from tests.tiny_model import build_tiny_model
from workbench.drift.ledger import Ledger
from workbench.errors import ConfigError
from workbench.schema import open_ledger
from workbench.tasks import Item
from workbench.workspace import Workspace
from workbench.worth import differing, fallen, forgotten, require_lineage, uncertainty, unsure


class Policy:
    def __init__(self, digest):
        self.digest = digest


def compare(number, answers=("yes", "no"), **slices):
    made = tuple(Completion(f"{text} {number}", Imported("s", "a")) for text in answers)
    return Comparison(Prompt.of(f"{number}?"), made, "s", slices)


def test_a_policy_is_most_unsure_where_its_margin_is_nothing():
    # p = 1 / (1 + e^-2) = 0.8808, 4 p (1 - p) = 0.41997
    assert [uncertainty(2), uncertainty(-2)] == pytest.approx([0.41997] * 2, abs=1e-5)
    assert (uncertainty(0), uncertainty(1e6)) == (1, 0)
    assert unsure({"a": [5.0, 0.0], "b": [0.0, 2.0]}) == {"a": 1, "b": pytest.approx(0.41997, abs=1e-5)}


def test_policies_differ_by_the_spread_of_their_margins():
    # the population standard deviation of 1 and 3 is 1
    assert differing({"a": [1.0, 3.0], "b": [2.0, 2.0]}) == {"a": 1, "b": 0}


def test_what_fell_is_told_by_slice_against_the_best_policy_before(tmp_path):
    ledger = Ledger(open_ledger(f"sqlite:///{tmp_path}/l.db"))
    margins = {
        "base": {"a": -1, "b": -1, "c": -1, "d": 1},
        "one": {"a": 1, "b": 1, "c": 1, "d": 1},  # the best
        "two": {"a": -1, "b": -1, "c": 1, "d": 1},
    }
    topics = {"a": "war", "b": "war", "c": "tea", "d": "war"}
    for policy, values in margins.items():
        ledger.record(
            policy, "n", [Item("retention/v", k, "margin", v, k, {"topic": topics[k]}, {}) for k, v in values.items()]
        )
    lineage = [Policy(name) for name in margins]
    losses = fallen(ledger, lineage, ["v", "never measured"])
    assert losses == {("topic", "war"): pytest.approx(2 / 3)}  # a and b of a, b and d; tea lost nothing
    war, tea = compare(1, topic="war"), compare(2, topic="tea")
    assert forgotten([war, tea], losses) == {war.key: pytest.approx(2 / 3), tea.key: 0}
    assert fallen(ledger, lineage[:2], ["v"]) == {}  # a gain is no loss
    assert fallen(ledger, lineage, ["v"], "topic=tea") == {}
    assert fallen(ledger, lineage, ["v"], "topic=war") == losses
    # outside the slice nothing is worth asking; a slice that no comparison has leaves none out
    assert forgotten([war, tea], {("source", "s"): 0.5}, "topic=war") == {war.key: 0.5, tea.key: 0}
    assert forgotten([war, tea], {("source", "s"): 0.5}, "length_band=long") == {war.key: 0.5, tea.key: 0.5}


def test_what_is_asked_again_is_what_this_policy_forgot_of_this_version_in_this_slice(tmp_path):
    world = two_rounds_in(World(tmp_path))
    frozen = frozen_version(world.ws)
    world.ws.versions.add("frozen", frozen)
    sides = ["a"] * 10 + ["b"] * 10
    for policy, right in ((world.base, 20), (world.first, 10), (world.second, 20)):  # of all twenty
        world.record(policy, retention(frozen, right, answers=sides))
    for policy, right in ((world.base, 10), (world.first, 0)):  # the first ten, and then none
        world.record(policy, retention(LATER, right, answers=sides))
    world.ws.store.add(Entry(compare(k, answer=side), ()) for k, side in enumerate("aaabbbbb"))

    def weighted(**fall):
        return world.ws.ask("p", by="me", strategy="forgetting", **fall).weighted

    first = world.first.digest
    assert weighted(policy=first, version="frozen") == 5  # what is lost is `b`
    assert weighted(policy=first) == 8  # and `a` of another version
    assert weighted(policy=first, version="frozen", within="answer=b") == 5
    assert weighted(policy=first, version="frozen", within="answer=a") == 0
    assert weighted(version="frozen") == 0  # the champion knows it all


@pytest.mark.parametrize(("strategy", "policies"), [("margin", 1), ("forgetting", 1), ("disagreement", 2)])
def test_a_lineage_that_is_too_short_is_said(strategy, policies):
    with pytest.raises(ConfigError, match=f"--strategy {strategy}: the policy has {policies - 1} policies before it"):
        require_lineage([Policy(str(k)) for k in range(policies)], strategy)
    require_lineage([Policy("base")], "random")


def test_what_is_worth_more_is_asked_more_and_everything_sometimes(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/p.db") as store:
        everything = [compare(k) for k in range(100)]
        store.add(Entry(c, ()) for c in everything)
        dear = {c.key: 1.0 for c in everything[:10]}
        asked = ask(store, "p", "pairwise", guideline="", settings=ProjectSettings(), by="lead", count=20,
                    strategy=Strategy("margin", lambda _: dear))  # fmt: skip
        assert asked.added == 20
        with store.engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT comparison.key, strategy, propensity FROM item JOIN comparison ON comparison.id = item.comparison"
            ).all()
    # the dear ten are certain; the rest of the twenty is spread evenly over the other ninety
    assert dear.keys() <= {key for key, *_ in rows}
    assert {strategy for _, strategy, _ in rows} == {'"margin"'}
    assert {round(float(propensity), 6) for *_, propensity in rows} == {1.0, round(10 / 90, 6)}


def test_margins_are_those_of_the_policies_over_the_base(tmp_path):
    ws = Workspace.init(tmp_path / "ws", base=build_tiny_model(tmp_path / "model"))
    ws.store.add(
        Entry(compare(k, answers), ()) for k, answers in enumerate([("yes", "no"), ("sure", "never"), ("x", "x")])
    )
    from workbench import assembly, worth

    base = ws.registry.ref(ws.registry.resolve("base"))
    (tmp_path / "staged").mkdir()
    comparisons = [entry.comparison for entry in ws.store.entries()]
    with assembly.tools("here") as tools:
        found = worth.implicit_margins(comparisons, [base], base, numerics=ws.numerics, score=tools.score,
                                       folder=tmp_path / "staged", cache=ws.ledger_url, report=lambda _: False)  # fmt: skip
    # the base has no margin over itself, and two equal answers are no comparison
    assert sorted(found.values()) == [[0.0], [0.0]]
    assert all(math.isclose(one, 1) for one in unsure(found).values())
