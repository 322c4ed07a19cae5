"""Optimizer steps merged with what earlier rounds did, against values by hand, and on a tiny model."""

import pytest
import torch

from tests.training_kit import World, quiet, weights
from workbench.config import MergingSettings
from workbench.errors import StopRequested
from workbench.tasks import Anchor
from workbench.training.optimise import optimise
from workbench.training.stepping import MergedSteps, merged

SHARE = 0.25


def toy(name="weight"):
    model = torch.nn.Module()
    model.device = torch.device("cpu")
    model.register_parameter(name, torch.nn.Parameter(torch.tensor([[1.0, 2.0]])))
    return model


def stepped(settings):
    """A weight of 1, 2, which are the task vector, too, after a step of 0.5, -4."""
    model = toy()
    steps = MergedSteps(model, {"weight": torch.zeros(1, 2)}, settings, 0)
    with torch.no_grad():
        model.weight.add_(torch.tensor([[0.5, -4.0]]))
    steps.after_step()
    return model.weight.tolist()[0]


def test_a_step_by_hand():
    whole = MergingSettings(kind="dare", share=SHARE, density=1.0)
    assert stepped(whole) == [1 + 0.75 * 0.5 + 0.25 * 1, 2 - 0.75 * 4 + 0.25 * 2]
    # sums 1.5 and -2: of the second number the task has the other sign
    ties = whole.model_copy(update={"kind": "ties"})
    assert stepped(ties) == [1 + 0.75 * 0.5 + 0.25 * 1, 2 - 0.75 * 4]
    # the larger number of each alone: the second one
    assert stepped(ties.model_copy(update={"density": 0.5})) == [1, 2 - 0.75 * 4]


def test_the_next_step_is_from_where_the_merged_one_ended():
    model = toy()
    steps = MergedSteps(model, {"weight": torch.zeros(1, 2)}, MergingSettings(kind="dare", share=0.5, density=1.0), 0)
    for _ in range(2):
        with torch.no_grad():
            model.weight.add_(2.0)
        steps.after_step()
    assert model.weight.tolist() == [[1 + 2 * (1 + 0.5), 2 + 2 * (1 + 1)]]


def test_dropped_numbers_are_not_scaled_up_and_drawn_anew_for_each_step():
    step, task, settings = torch.ones(4000), torch.full((4000,), 4.0), MergingSettings(kind="dare", share=SHARE)
    generator = torch.Generator().manual_seed(0)
    found, other = (merged(step, task, settings, generator) for _ in range(2))
    # 0.75 of the step, 0.25 x 4 of the task, each in half of the places
    assert sorted(set(found.tolist())) == [0, 0.75, 1, 1.75]
    assert float(found.mean()) == pytest.approx(0.875, abs=0.05)
    assert not torch.equal(found, other)


def test_an_adapters_a_has_no_task_vector():
    model = toy("lora")
    model.lora = torch.nn.Parameter(torch.tensor([[1.0, 2.0]]))
    named = "q.lora_A.default.weight"
    model.named_parameters = lambda: iter([(named, model.lora)])
    for settings in (
        MergingSettings(kind="ties", share=0.5, density=1.0),
        MergingSettings(kind="dare", share=0.5, density=1.0),
    ):
        steps = MergedSteps(model, {named: torch.zeros(1, 2)}, settings, 0)
        before = model.lora.detach().clone()
        with torch.no_grad():
            model.lora.add_(torch.tensor([[2.0, -2.0]]))
        steps.after_step()
        assert (model.lora - before).tolist() == [[1, -1]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("stepped"))


@pytest.fixture(scope="module")
def first(world):
    return world.adapter(world.train(), "1")


def test_a_round_that_drops_nothing_and_adds_nothing_is_a_plain_one(world, first):
    later = {"parent": first, "anchors": (Anchor(first, 1.0),)}
    plain = weights(world.train(**later))
    found = weights(world.train(**later, merging=MergingSettings(kind="dare", share=0.0, density=1.0)))
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in plain.items())
    less = weights(world.train(**later, merging=MergingSettings(kind="dare")))
    assert any(not torch.allclose(less[name], value, atol=1e-3) for name, value in plain.items())


@pytest.mark.parametrize("kind", ["dare", "ties"])
def test_a_merged_round_goes_on_as_it_would_have(world, first, kind):
    changes = {"parent": first, "anchors": (Anchor(first, 1.0),), "merging": MergingSettings(kind=kind, share=1e-3)}
    whole = weights(world.train(**changes))
    job = world.job(**changes)
    with pytest.raises(StopRequested):
        optimise(job, lambda p: p.step == "optimise" and p.done == 3)
    optimise(job, quiet)
    assert all(torch.equal(weights(job.output)[name], value) for name, value in whole.items())
