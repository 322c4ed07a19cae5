"""A linear layer with its adapter as one product gives what PEFT gives."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from workbench.models.adapted import AdaptedLinear, use_one_product


def adapted(*, with_bias=False, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5, bias=with_bias), nn.Tanh(), nn.Linear(5, 3, bias=with_bias)).to(dtype)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, target_modules=["0", "2"], **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would hide what it does
            nn.init.normal_(parameter)
    return model.to(dtype)


def both(model):
    """The model as PEFT has it, and ours."""
    ours = copy.deepcopy(model)
    use_one_product(ours)
    assert sum(isinstance(module, AdaptedLinear) for module in ours.modules()) == 2
    return model, ours


def outcome(model, x):
    """Output, and gradients of the input and of all that is trained."""
    x = x.clone().requires_grad_()
    found = model(x)
    weights = torch.arange(found.numel(), dtype=found.dtype).view(found.shape)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [found, *torch.autograd.grad((found * weights).sum(), [x, *trained], allow_unused=True)]


@pytest.mark.parametrize("bias", [False, True])
def test_output_and_gradients_are_those_of_peft(bias):
    torch.manual_seed(1)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    theirs, ours = (outcome(model, x) for model in both(adapted(with_bias=bias)))
    assert len(ours) == 2 + 4
    for a, b in zip(theirs, ours, strict=True):
        assert b.abs().max() > 0
        assert torch.allclose(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_under_autocast_it_rounds_as_peft_does(seed):
    torch.manual_seed(seed)
    x = torch.randn(2, 4, 6)
    theirs, ours = both(adapted(dtype=torch.float32))
    exact = outcome(theirs, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = [outcome(model, x) for model in (theirs, ours)]
    for wanted, peft, own in zip(exact, *found, strict=True):
        assert own.dtype == peft.dtype
        for each in (peft, own):
            # eight bits, so each rounding is within 0.4 %, of which there are a few in a row
            assert (each.float() - wanted).abs().max() <= 0.03 * wanted.abs().max()


@pytest.mark.parametrize(
    ("settings", "prepare"),
    [
        ({}, lambda model: model.disable_adapter_layers()),
        ({}, lambda model: model.merge_adapter()),
        ({"lora_dropout": 0.5}, lambda model: model.train()),
        ({"use_dora": True}, lambda _: None),
        ({"lora_bias": True, "bias": "none"}, lambda _: None),
        ({"bias": "all"}, lambda _: None),
        ({}, lambda model: model.base_model.model[0].base_layer.weight.requires_grad_()),
    ],
    ids=["disabled", "merged", "dropout", "dora", "bias of the adapter", "trained bias", "trained weight"],
)
def test_what_it_does_not_know_is_left_to_peft(settings, prepare):
    model = adapted(with_bias=True, **settings)
    prepare(model)
    theirs, ours = both(model)
    x = torch.randn(1, 2, 6, dtype=torch.float64)
    found = []
    for each in (theirs, ours):
        torch.manual_seed(2)
        found.append([g for g in outcome(each, x) if g is not None])
    assert len(found[0]) == len(found[1])
    assert all(torch.allclose(a, b, atol=1e-12, rtol=1e-12) for a, b in zip(*found, strict=True))


def test_two_adapters_at_once_are_left_to_peft():
    model = adapted()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False))
    model.double()
    model.base_model.set_adapter(["default", "second"])
    theirs, ours = both(model)
    x = torch.randn(1, 2, 6, dtype=torch.float64)
    assert torch.equal(theirs(x), ours(x))
