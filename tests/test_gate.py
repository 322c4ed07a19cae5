"""The gate: each rule at its edge, what is missing, and how often it is wrong (simulated)."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.config import GateSettings
from workbench.drift.uncertainty import Estimate, not_enough, paired_shares, ratio
from workbench.rounds.gate import Measured, judge

SETTINGS = GateSettings()


def near(value, error, n=90):
    return Estimate(value, value - 1.959964 * error, value + 1.959964 * error, n, "t")


GOOD = Measured(
    finite_weights=True,
    gain=near(0.2, 0.05),
    retention_change={"v1": near(0.0, 0.02), "v2": near(-0.04, 0.02)},
    tax={"choice": near(0.01, 0.01), "text": near(-0.01, 0.001)},
    kl_parent=near(0.2, 0.01),
    kl_base=near(0.4, 0.01),
)


def failed(measured, settings=SETTINGS):
    return [one.name for one in judge(settings, measured).failures]


def test_a_good_round_passes():
    verdict = judge(SETTINGS, GOOD)
    assert verdict.passed
    assert [one.name for one in verdict.criteria] == [
        "finite weights", "gain", "retention/v1", "retention/v2", "tax/choice", "tax/text", "kl/parent", "kl/base",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("harm", "names"),
    [
        ({"finite_weights": False}, ["finite weights"]),
        ({"finite_weights": None}, ["finite weights"]),
        # lower bound 0.2 - 1.96 * 0.103 = -0.002
        ({"gain": near(0.2, 0.103)}, ["gain"]),
        # four losses: one-sided 5 %/4, z = 2.2414. 0.06 - 2.2414 * 0.0267 = 0.00015 is above zero
        ({"retention_change": {"v1": near(-0.06, 0.0267), "v2": near(0, 0.1)}}, ["retention/v1"]),
        # 0.06 - 2.2414 * 0.0269 = -0.0003 may be chance
        ({"retention_change": {"v1": near(-0.06, 0.0269), "v2": near(0, 0.1)}}, []),
        # certain, but within 0.05
        ({"retention_change": {"v1": near(-0.049, 0.001), "v2": near(0, 0.1)}}, []),
        ({"tax": {"choice": near(0.03, 0.01), "text": near(0.021, 0.001)}}, ["tax/choice", "tax/text"]),
        # upper bound 0.49 + 1.96 * 0.01 = 0.5096
        ({"kl_parent": near(0.49, 0.01)}, ["kl/parent"]),
        ({"kl_base": near(1.2, 0.01)}, ["kl/base"]),
    ],
)
def test_each_rule_at_its_edge(harm, names):
    assert failed(replace(GOOD, **harm)) == names


@pytest.mark.parametrize(
    "missing", [None, not_enough(3, "3 independent groups"), Estimate(math.nan, math.nan, math.nan, 90, "t")]
)
def test_a_missing_number_fails_with_a_reason(missing):
    nothing = Measured(
        finite_weights=True,
        gain=missing,
        retention_change={"v1": missing},
        tax={"choice": missing},
        kl_parent=missing,
        kl_base=missing,
    )
    verdict = judge(SETTINGS, nothing)
    assert [one.name for one in verdict.failures] == ["gain", "retention/v1", "tax/choice", "kl/parent", "kl/base"]
    assert all(one.reason.startswith(("not measured", "no number: ")) for one in verdict.failures)


def test_an_update_may_lose_what_it_replaces():
    lost = replace(GOOD, retention_change={"v1": near(-0.5, 0.05), "v2": near(0, 0.02)})
    assert failed(lost) == ["retention/v1"]
    verdict = judge(SETTINGS, replace(lost, superseded=frozenset({"v1"})))
    assert verdict.passed
    shown = next(one for one in verdict.criteria if one.name == "retention/v1")
    assert shown.value is not None
    assert (shown.value.value, shown.rule) == (0.5, "not judged")
    assert judge(SETTINGS, replace(GOOD, retention_change={"v1": None}, superseded=frozenset({"v1"}))).passed


def test_it_says_what_it_cannot_see():
    # one loss of error 0.06: z = 1.6449 one-sided; found in 80 % from (1.6449 + 0.8416) * 0.06 = 0.149
    blind = replace(GOOD, retention_change={"v1": near(-0.07, 0.06, n=30)}, tax={})
    shown = judge(SETTINGS, blind).criteria[2]
    assert shown.passed
    assert shown.smallest_visible == pytest.approx(0.1492, abs=1e-4)
    assert shown.reason == "0.070 may be chance; n=30 cannot see a loss below 0.149"
    # error 0.001: the threshold sets it, 0.05 + 0.8416 * 0.001
    sharp = replace(GOOD, retention_change={"v1": near(-0.01, 0.001)}, tax={})
    assert judge(SETTINGS, sharp).criteria[2].reason == "0.010 is within 0.05; n=90 may miss a loss below 0.051"


def test_a_verdict_is_plain_json_and_rows():
    verdict = judge(SETTINGS, replace(GOOD, gain=Estimate(math.nan, 0.0, math.inf, 9, "t"), kl_base=None))
    plain = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert plain["passed"] is False
    assert plain["criteria"][1]["value"] == {"value": None, "low": 0.0, "high": None, "n": 9, "method": "t"}
    assert plain["criteria"][2]["threshold"] == 0.05
    rows = verdict.rows()
    assert rows[-1] == ("kl/base", "-", "1", "FAIL", "not measured")
    assert rows[2][:4] == ("retention/v1", "0.000 [-0.039, 0.039] n=90", "0.05", "pass")


@given(
    loss=st.floats(0, 1),
    more=st.floats(0, 1),
    error=st.floats(1e-4, 0.2),
    threshold=st.floats(0, 0.5),
)
def test_a_larger_loss_is_never_better(loss, more, error, threshold):
    settings = GateSettings(max_retention_drop=threshold)
    small, large = (replace(GOOD, retention_change={"v1": near(-x, error)}) for x in (loss, loss + more))
    assert failed(large, settings) or not failed(small, settings)


# How often it is wrong. Sizes of the default suites: 320 choice items, 40 refusal prompts, 50 texts, 90 pairs per version.


def drawn(rng, n, *, lost, flipped):
    """After and before of n items, of which `flipped` change, so that the share falls by `lost`."""
    kind = rng.choice(3, n, p=[1 - flipped, (flipped - lost) / 2, (flipped + lost) / 2])
    return (kind == 1).astype(float), (kind == 2).astype(float)


def refused(*, flipped, versions=4, tax=0.0, drop=0.0, rounds=500):
    """Share of simulated rounds refused, and share in which choice and the first version were among the reasons."""
    rng = np.random.default_rng(11)
    names = []
    for _ in range(rounds):
        drops = {f"v{i}": drawn(rng, 90, lost=drop * (i == 0), flipped=flipped) for i in range(versions)}
        after, before = drawn(rng, 320, lost=tax, flipped=flipped)
        measured = replace(
            GOOD,
            retention_change={name: paired_shares(*pair) for name, pair in drops.items()},
            tax={
                "choice": paired_shares(before, after),
                "refusal": paired_shares(*drawn(rng, 40, lost=0, flipped=flipped)),
                "text": ratio(rng.normal(0, 3, 50), rng.normal(1000, 100, 50)),
            },
        )
        names.append(failed(measured))
    any_, choice, first = (np.mean([test(one) for one in names]) for test in (
        bool, lambda one: "tax/choice" in one, lambda one: "retention/v0" in one))  # fmt: skip
    return any_, choice, first


@pytest.mark.parametrize("versions", [1, 8])
@pytest.mark.parametrize("flipped", [0.05, 0.1, 0.2, 0.3])
def test_rounds_that_lose_nothing_are_seldom_refused(flipped, versions):
    assert refused(flipped=flipped, versions=versions, rounds=300)[0] <= 0.05 + 1.645 * math.sqrt(0.05 * 0.95 / 300)


def test_planted_losses_are_caught_as_often_as_n_allows(record_property):
    # The most any test could do at one-sided 5 % / 5 losses (z = 2.326) without spending more false alarms:
    # choice, 5 points, 10 % flips: error sqrt(0.0975/320) = 0.01746, power = P(Z > 2.326 - 2.864) = 0.70
    # version, 10 points, 15 % flips: error sqrt(0.14/90) = 0.0394, power = P(Z > 2.326 - 2.535) = 0.58
    _, choice, _ = refused(flipped=0.1, versions=2, tax=0.05)
    _, _, version = refused(flipped=0.15, versions=2, drop=0.10)
    _, _, large = refused(flipped=0.25, versions=2, drop=0.20)
    _, _, small = refused(flipped=0.1, versions=2, drop=0.05)
    for name, rate in (("choice -5", choice), ("version -10", version), ("version -20", large), ("version -5", small)):
        record_property(name, float(rate))
    assert choice >= 0.60
    assert version >= 0.45
    assert large >= 0.95
    # 90 pairs cannot see 5 points: the gate must say so rather than guess
    assert small <= 0.3
    shown = judge(SETTINGS, replace(GOOD, retention_change={"v": paired_shares(np.ones(90), np.ones(90))})).criteria[2]
    assert "n=90 may miss" in shown.reason


def test_a_round_that_learned_nothing_is_not_promoted():
    rng = np.random.default_rng(3)
    gains = [paired_shares(*drawn(rng, 90, lost=0, flipped=0.2)) for _ in range(500)]
    assert np.mean(["gain" not in failed(replace(GOOD, gain=one)) for one in gains]) <= 0.04
    real = [paired_shares(*drawn(rng, 90, lost=-0.2, flipped=0.35)) for _ in range(300)]
    assert np.mean(["gain" not in failed(replace(GOOD, gain=one)) for one in real]) >= 0.85
