"""Frozen matrices in blocks give the same bits, and own norms what the model's give."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from workbench.models import packed
from workbench.models.adapted import AdaptedLinear, use_one_product
from workbench.models.head import DirectHead, token_logps
from workbench.models.norms import use_own_norms
from workbench.models.packed import FrozenLinear, can_pack, hold_in_half, matrix_of

needs_blocks = pytest.mark.skipif(not can_pack(), reason="this CPU does not multiply bfloat16 through oneDNN")
SMALL = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}  # fmt: skip


def held(monkeypatch, *, blocks, bias=True, kind=nn.Linear):
    """A frozen layer in bfloat16, in blocks or as it lies."""
    torch.manual_seed(0)
    monkeypatch.setattr(packed, "can_pack", lambda: blocks)
    model = nn.Sequential(kind(12, 7, bias=bias)).requires_grad_(requires_grad=False)
    hold_in_half(model)
    return model[0]


def outcome(layer, rows):
    """Output, and the gradients of the input and of what is trained."""
    rows = rows.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found = layer(rows)
    weights = torch.arange(found.numel(), dtype=found.dtype).view(found.shape)
    trained = [p for p in layer.parameters() if p.requires_grad]
    return [found, *torch.autograd.grad((found * weights).sum(), [rows, *trained])]


@needs_blocks
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 5, 300])
def test_blocks_change_no_bit_of_output_or_gradient(monkeypatch, bias, rows):
    x = torch.randn(2, rows, 12)
    plain, ours = (held(monkeypatch, blocks=blocks, bias=bias) for blocks in (False, True))
    assert (type(plain), type(ours)) == (nn.Linear, FrozenLinear)
    for a, b in zip(outcome(plain, x), outcome(ours, x), strict=True):
        assert torch.equal(a, b)


@needs_blocks
def test_a_matrix_in_blocks_lies_nowhere_else_and_can_still_be_read(monkeypatch):
    plain, ours = (held(monkeypatch, blocks=blocks) for blocks in (False, True))
    assert [name for name, _ in ours.named_parameters()] == ["bias"]
    assert torch.equal(ours.weight, plain.weight)
    assert torch.equal(matrix_of(ours, torch.float32).there(torch.eye(12)), plain.weight.float().T + plain.bias)


@needs_blocks
def test_without_room_matrices_stay_as_they_lie(monkeypatch):
    monkeypatch.setattr(packed, "free_memory", lambda: 2 * (12 * 7 * 2) / packed.ROOM - 1)
    assert type(held(monkeypatch, blocks=True)) is nn.Linear
    monkeypatch.setattr(packed, "free_memory", lambda: 2 * (12 * 7 * 2) / packed.ROOM)
    assert type(held(monkeypatch, blocks=True)) is FrozenLinear


@needs_blocks
def test_an_adapted_layer_over_blocks_is_what_it_is_over_the_matrix(monkeypatch):
    found = []
    for blocks in (False, True):
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(12, 7))
        model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
        use_one_product(model)
        monkeypatch.setattr(packed, "can_pack", lambda blocks=blocks: blocks)
        hold_in_half(model)
        layer = next(module for module in model.modules() if isinstance(module, AdaptedLinear))
        assert (type(layer.base_layer) is FrozenLinear) == blocks
        torch.manual_seed(1)
        found.append(outcome(model, torch.randn(5, 12)))
    assert len(found[0]) == 4
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@needs_blocks
def test_a_head_in_blocks_gives_the_same_log_probabilities(monkeypatch):
    hidden, targets = torch.randn(300, 12), torch.arange(300) % 7
    found = []
    for blocks in (False, True):
        head = held(monkeypatch, blocks=blocks, bias=False, kind=DirectHead)
        states = hidden.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logps = token_logps(head, states, targets)
        found.append([logps, *torch.autograd.grad(logps.sum(), states)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def normed(kind, config):
    torch.manual_seed(0)
    model = kind(config(**SMALL)).eval().requires_grad_(requires_grad=False)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # ones, which would hide whether they are used
            parameter.normal_(1.0, 0.2)
    return model


@pytest.mark.parametrize(
    ("kind", "config", "own"),
    [
        (LlamaForCausalLM, LlamaConfig, 4),
        (Qwen3ForCausalLM, Qwen3Config, 8),  # queries and keys have norms of their own
        (GemmaForCausalLM, GemmaConfig, 0),  # multiplies by one more than its weight
    ],
)
def test_own_norms_give_the_model_s_output_and_gradients(kind, config, own):
    found = []
    for ours in (False, True):
        model = normed(kind, config).double()
        if ours:
            use_own_norms(model)
            replaced = [m for m in model.modules() if "workbench" in type(m).forward.__module__]
            assert len(replaced) == own
        states = torch.randn(1, 6, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        states.requires_grad_()
        logits = model(inputs_embeds=states).logits
        weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view(logits.shape)
        found.append([logits, *torch.autograd.grad((logits * weights).sum(), states)])
    for a, b in zip(*found, strict=True):
        # transformers takes the mean in float32
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_norm_is_its_derivative():
    (norm,) = [m for n, m in normed(LlamaForCausalLM, LlamaConfig).named_modules() if n.endswith("0.input_layernorm")]
    model = nn.ModuleDict({"0": norm.double()})
    use_own_norms(model)
    torch.autograd.gradcheck(model["0"], torch.randn(3, 24, dtype=torch.float64, requires_grad=True))


def test_a_norm_in_training_is_the_model_s_own():
    model = normed(LlamaForCausalLM, LlamaConfig)
    use_own_norms(model)
    norm = model.model.layers[0].input_layernorm
    norm.weight.requires_grad_()
    norm(torch.randn(2, 24)).sum().backward()
    assert norm.weight.grad is not None
