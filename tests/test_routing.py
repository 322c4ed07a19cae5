"""Asking people only where it pays: who is asked, what that saves, and what the random share says."""

import math

import pytest

from preference_data.records import Comparison, Completion, Imported, Judgement, Pairwise, Prompt, Verdict, now
from preference_data.store import Entry
from workbench.config import ProxySettings
from workbench.routing import route, saved


def comparison(k):
    return Comparison(
        Prompt.of(f"question {k}"), tuple(Completion(f"{k} {side}", Imported("t")) for side in "ab"), "t", {}
    )


def judged(c, *, first):
    verdict = Verdict.FIRST if first else Verdict.SECOND
    return Entry(c, (Judgement(c.key, "ann", Pairwise(verdict), now()),))


def test_sure_is_far_apart_and_the_policy_agrees():
    three = [comparison(k) for k in range(4)]
    # At 0.9 it takes log 9 = 2.197 between the rewards.
    gaps = [math.log(9) + 1e-9, math.log(9) - 1e-9, -5.0, 5.0]
    margins = {three[0].key: 0.5, three[2].key: -0.5, three[3].key: -0.5}
    settings = ProxySettings(control=1e-9)
    routed = route(three, gaps, margins, settings)
    assert routed.sure == routed.proxy == {three[0].key, three[2].key}
    assert routed.first == {three[0].key, three[1].key, three[3].key}
    alone = route(three, gaps, {}, settings.model_copy(update={"agreeing": False}))
    assert alone.sure == {three[0].key, three[2].key, three[3].key}


def test_the_control_is_a_random_share_that_the_proxy_never_labels():
    many = [comparison(k) for k in range(2000)]
    routed = route(many, [9.0] * 2000, {c.key: 1.0 for c in many}, ProxySettings(control=0.2))
    assert len(routed.control) / 2000 == pytest.approx(0.2, abs=0.04)
    assert routed.proxy == routed.sure - routed.control
    assert routed == route(many[::-1], [9.0] * 2000, {c.key: 1.0 for c in many}, ProxySettings(control=0.2))


def test_what_it_saves_against_how_often_it_is_right():
    many = [comparison(k) for k in range(1000)]
    gaps = [9.0 if k % 2 else 0.1 for k in range(1000)]  # sure of every other one, always of the first answer
    routed = route(many, gaps, {c.key: 1.0 for c in many}, ProxySettings(control=0.3))
    # People prefer the first wherever the proxy is sure, and the second elsewhere.
    found = saved(routed, [judged(c, first=gap > 1) for c, gap in zip(many, gaps, strict=True)])
    assert found.share == len(routed.proxy) / 1000 == pytest.approx(0.35, abs=0.04)
    assert found.sure.value == 1.0
    assert found.random.value == pytest.approx(0.5, abs=0.1)
    assert found.random.n == len(routed.control)


def test_equal_rewards_prefer_nothing():
    many = [comparison(k) for k in range(200)]
    routed = route(many, [0.0] * 200, {}, ProxySettings(control=0.5))
    assert saved(routed, [judged(c, first=True) for c in many]).random.value is None


def test_ties_and_an_empty_control_say_nothing():
    one = comparison(0)
    routed = route([one], [9.0], {one.key: 1.0}, ProxySettings(control=0.999999))
    tie = Entry(one, (Judgement(one.key, "ann", Pairwise(Verdict.TIE), now()),))
    found = saved(routed, [tie])
    assert (found.share, found.sure.value, found.random.value) == (0.0, None, None)


@pytest.mark.parametrize("values", [{"by": "nobody"}, {"confidence": 0.5}, {"control": 0.0}])
def test_a_proxy_that_makes_no_sense_is_refused(values):
    with pytest.raises(ValueError, match=r"by|confidence|control"):
        ProxySettings.model_validate(values)
