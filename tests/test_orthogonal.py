"""Updates kept orthogonal to earlier rounds' ones, against whole matrices."""

from itertools import pairwise

import pytest
import torch

from tests.training_kit import World, weights
from workbench.config import PenaltySettings
from workbench.tasks import Anchor
from workbench.training.orthogonal import orthogonal
from workbench.training.penalties import Pass

NAMES = [f"{layer}.lora_{side}.default.weight" for layer in ("q", "v") for side in "AB"]


def policy(seed, *, rank=2, size=5):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"A": (rank, size), "B": (size + 1, rank)}
    return {n: torch.randn(*shapes[n[7]], generator=generator, dtype=torch.float64) for n in NAMES}


class Policy(torch.nn.Module):
    """A module with an adapter's names and nothing else."""

    def __init__(self, given):
        super().__init__()
        for name, value in given.items():
            inner = self
            *path, last = name.split(".")
            for part in path:
                if part not in dict(inner.named_children()):
                    inner.add_module(part, torch.nn.Module())
                inner = getattr(inner, part)
            inner.register_parameter(last, torch.nn.Parameter(value.clone()))


def whole(weights):
    return [weights[b] @ weights[a] for a, b in zip(NAMES[::2], NAMES[1::2], strict=True)]


def updates(line):
    return [[m - n for m, n in zip(whole(after), whole(before), strict=True)] for before, after in pairwise(line)]


def overlap(ones, others):
    return sum(float(((one @ other.t()) ** 2).sum()) for one, other in zip(ones, others, strict=True))


def term(line, now, weight=1.0):
    return orthogonal(line, weight)(Pass(Policy(now), None, None, None, 0.1))


def test_it_is_the_overlap_of_whole_updates():
    base = {name: torch.zeros_like(value) for name, value in policy(0).items()}
    line, now = [base, policy(1), policy(2)], policy(3)
    (mine,) = updates([line[-1], now])
    expected = sum(overlap(each, mine) / overlap(each, each) for each in updates(line))
    assert term(line, now, 0.7).item() == pytest.approx(0.7 * expected)


def test_doing_the_same_once_more_costs_the_weight_and_another_direction_nothing():
    base = {name: torch.zeros_like(value) for name, value in policy(0).items()}
    first = policy(1)
    again = {name: value * (2 if ".lora_B." in name else 1) for name, value in first.items()}  # 2 B A - B A
    assert term([base, first], again, 3.0).item() == pytest.approx(3)
    # rounds that read from inputs of their own: A has other columns
    left, right = torch.tensor([1.0, 1, 1, 0, 0]).double(), torch.tensor([0.0, 0, 0, 1, 1]).double()
    first |= {name: first[name] * left for name in NAMES[::2]}
    other = {name: torch.cat([first[name], policy(2)[name] * right]) for name in NAMES[::2]}
    other |= {name: torch.cat([first[name], policy(2)[name]], dim=1) for name in NAMES[1::2]}
    wide = {name: torch.cat([first[name], torch.zeros_like(first[name])]) for name in NAMES[::2]}
    wide |= {name: torch.cat([first[name], torch.zeros_like(first[name])], dim=1) for name in NAMES[1::2]}
    nothing = {name: torch.zeros_like(value) for name, value in wide.items()}
    assert term([nothing, wide], other).item() == pytest.approx(0, abs=1e-20)


def test_the_first_step_pays_nothing_and_is_pulled_nowhere():
    base = {name: torch.zeros_like(value) for name, value in policy(0).items()}
    model = Policy(policy(1))
    found = orthogonal([base, policy(1)], 5.0)(Pass(model, None, None, None, 0.1))
    found.backward()
    assert found.item() == 0
    assert all(not p.grad.any() for p in model.parameters())


def test_without_an_earlier_update_there_is_no_term():
    assert orthogonal([], 1.0) is None
    assert orthogonal([policy(1)], 1.0) is None
    assert orthogonal([policy(1), policy(1)], 1.0) is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("orthogonal"))


@pytest.fixture(scope="module")
def first(world):
    return world.adapter(world.train(), "1")


HEAVY = PenaltySettings(orthogonal=1e4)


def test_a_first_round_is_as_without_it(world, first):
    alone = weights(world.train(penalties=HEAVY, lineage=(world.base,)))
    assert all(torch.equal(alone[name], value) for name, value in weights(first.path).items())


def test_a_later_round_reads_from_elsewhere(world, first):
    later = {"parent": first, "anchors": (Anchor(first, 1.0),), "lineage": (world.base, first)}
    children = [weights(world.train(**later, penalties=each)) for each in (PenaltySettings(), HEAVY)]
    start = weights(first.path)

    def repeated(child):
        found = 0.0
        for name in (name for name in start if ".lora_A." in name):
            other = name.replace(".lora_A.", ".lora_B.")
            before, after = (each[other] @ each[name] for each in (start, child))
            found += float(((before @ (after - before).t()) ** 2).sum())
        return found

    plain, held = map(repeated, children)
    assert held < plain / 2
