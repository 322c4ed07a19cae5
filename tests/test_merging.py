"""Merges with the policy a round started from, against values by hand, and on a tiny model."""

import math

import pytest
import torch

from tests.training_kit import World, weights
from workbench.config import AfterSettings
from workbench.maths import between, slerp
from workbench.tasks import Anchor
from workbench.training.merging import Given, _voters, kept, merge_of


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("merged"))


@pytest.fixture(scope="module")
def first(world):
    return world.adapter(world.train(), "1")


@pytest.fixture(scope="module")
def plain(world, first):
    return weights(world.train(**second(world, first)))


def second(world, first, **changes):
    return {
        "parent": first, "anchors": (Anchor(first, 1.0),), "lineage": (world.base, first), "versions": (world.version,),
        **changes,
    }  # fmt: skip


def test_slerp_by_hand():
    # a right angle: half of it is 45 degrees, a third of it towards the start 60 degrees from there
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    assert slerp(start, end, 0.5).tolist() == pytest.approx([2 * math.sqrt(0.5), math.sqrt(0.5)])
    assert slerp(start, end, 1 / 3).tolist() == pytest.approx([2 * 0.5, math.sqrt(3) / 2])
    assert slerp(start, end, 0.0).tolist() == pytest.approx([0, 1])
    assert slerp(start, end, 1.0).tolist() == pytest.approx([2, 0])


def test_slerp_keeps_the_length_that_an_average_shortens():
    start, end = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end *= start.norm() / end.norm()
    assert float(slerp(start, end, 0.3).norm()) == pytest.approx(float(start.norm()))
    assert float(between(start, end, 0.3).norm()) < 0.95 * float(start.norm())


@pytest.mark.parametrize("start", [[6.0, 2.0], [0.0, 0.0], [-3.0, -1.0]])
def test_without_an_arc_slerp_is_the_average(start):
    start, end = torch.tensor(start), torch.tensor([3.0, 1.0])
    assert torch.equal(slerp(start, end, 0.25), between(start, end, 0.25))


def test_ties_by_hand():
    # half of each is kept: 4, -3 | 5, 5 | -5, -1; their sum is -1, -3, 5, 4: the first number is outvoted
    update, earlier = [4.0, -3.0, 1.0, 2.0], [[-1.0, -2.0, 5.0, 5.0], [-5.0, 0.0, 0.5, -1.0]]
    settings = AfterSettings(keep=(0.5,), merge="ties")
    found = kept(torch.tensor(update), [torch.tensor(each) for each in earlier], settings)
    assert found.tolist() == [0, -3, 0, 0]
    whole = settings.model_copy(update={"density": 1.0})  # sums -2, -5, 6.5, 6
    assert kept(torch.tensor(update), [torch.tensor(each) for each in earlier], whole).tolist() == [0, -3, 1, 2]
    assert kept(torch.tensor(update), [], whole).tolist() == update


def test_dare_drops_at_random_and_scales_what_is_left():
    start, child = {"w": torch.ones(4000)}, {"w": torch.full((4000,), 3.0)}
    settings = AfterSettings(keep=(0.5,), merge="dare_linear", density=0.25)
    state = torch.get_rng_state()
    merge = merge_of(child, start, settings, Given({}, (), 7))
    assert torch.equal(torch.get_rng_state(), state)
    # an update of 2 is 0, or 2 / 0.25 = 8; half of it is kept by the start
    found = merge("w", 0.5)
    assert sorted(set(found.tolist())) == [1, 5]
    assert (found > 1).float().mean() == pytest.approx(0.25, abs=0.03)  # four standard deviations of a share of 4,000
    assert torch.equal(merge_of(child, start, settings, Given({}, (), 7))("w", 0.5), found)
    assert not torch.equal(merge_of(child, start, settings, Given({}, (), 8))("w", 0.5), found)
    assert torch.equal(merge("w", 0.25) - 1, (found - 1) * 1.5)  # the same numbers are dropped for every share


def test_dare_with_ties_lets_earlier_rounds_vote():
    start, child = {"w": torch.zeros(100)}, {"w": torch.ones(100)}
    against = Given({}, [{"w": torch.full((100,), -9.0)}], 0)
    settings = AfterSettings(keep=(0.5,), merge="dare_ties", density=0.5)
    left, free = (merge_of(child, start, settings, each)("w", 0.5) for each in (against, Given({}, (), 0)))
    # where the earlier round's number was not dropped, too, it outvotes: half of the half
    assert float((free > 0).float().mean()) == pytest.approx(0.5, abs=0.2)
    assert float((left > 0).float().mean()) == pytest.approx(0.25, abs=0.2)
    assert set(left.tolist()) == {0, 1}


def test_the_first_rounds_a_has_no_vote():
    updates = [{"q.lora_A.default.weight": 1, "q.lora_B.default.weight": 2}, {"q.lora_A.default.weight": 3}]
    assert _voters("q.lora_A.default.weight", updates) == [3]
    assert _voters("q.lora_B.default.weight", updates[:1]) == [2]


@pytest.mark.parametrize("merge", ["slerp", "ties", "dare_linear", "dare_ties"])
def test_a_share_of_nothing_is_the_child_bit_for_bit(world, first, plain, merge):
    after = AfterSettings(keep=(0.0,), merge=merge)
    found = weights(world.train(**second(world, first, after=after)))
    assert all(torch.equal(found[name], value) for name, value in plain.items())


def test_a_trained_child_is_merged_as_asked(world, first, plain):
    start = weights(first.path)
    found = {
        merge: weights(world.train(**second(world, first, after=AfterSettings(keep=(0.25,), merge=merge))))
        for merge in ("slerp", "ties")
    }
    settings = AfterSettings(keep=(0.25,), merge="ties")
    for name, end in plain.items():
        assert torch.allclose(found["slerp"][name], slerp(start[name], end, 0.25), atol=1e-6)
        voters = [start[name]] if ".lora_B." in name else []  # what the first round did to B, it did to zero
        expected = start[name] + 0.75 * kept(end - start[name], voters, settings)
        assert torch.allclose(found["ties"][name], expected, atol=1e-6)
