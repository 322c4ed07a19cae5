"""Frozen matrices in blocks give the same bits."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from workbench.models import packed
from workbench.models.adapted import AdaptedLinear, use_one_product
from workbench.models.head import DirectHead, token_logps
from workbench.models.packed import FrozenLinear, can_pack, hold_in_half, matrix_of

SHAPE = 7, 12
needs_blocks = pytest.mark.skipif(not can_pack(SHAPE), reason="this CPU does not multiply bfloat16 through oneDNN")


def held(monkeypatch, *, blocks, bias=True, kind=nn.Linear):
    """A frozen layer in bfloat16, in blocks or as it lies."""
    torch.manual_seed(0)
    monkeypatch.setattr(packed, "can_pack", lambda shape: blocks)
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
    assert torch.equal(ours.packed.dense(), plain.weight)
    told = ours.weight
    assert (told.shape, told.dtype, told.device) == (plain.weight.shape, plain.weight.dtype, plain.weight.device)
    assert told.isnan().all(), "who reads its numbers must notice"
    assert torch.equal(matrix_of(ours, torch.float32).there(torch.eye(12)), plain.weight.float().T + plain.bias)


@needs_blocks
def test_merging_takes_the_matrix_out_of_its_blocks(monkeypatch):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 7))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    use_one_product(model)
    monkeypatch.setattr(packed, "can_pack", lambda shape: True)
    hold_in_half(model)
    rows = torch.randn(5, 12)
    layer = model.base_model.model[0]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = model(rows)
        model.merge_adapter()
        after = model(rows)
    assert layer.base_layer.packed is None
    assert {n for n, _ in layer.base_layer.named_parameters()} == {"weight", "bias"}
    assert before.abs().max() > 0
    # the sum of both matrices is rounded once more
    assert (after - before).abs().max() <= 0.02 * before.abs().max()


@needs_blocks
def test_held_twice_it_is_held_once(monkeypatch):
    layer = held(monkeypatch, blocks=True)
    before, packed_before = layer.packed.dense(), layer.packed
    hold_in_half(nn.Sequential(layer))
    assert layer.packed is packed_before
    assert torch.equal(layer.packed.dense(), before)


@needs_blocks
def test_without_room_matrices_stay_as_they_lie(monkeypatch):
    monkeypatch.setattr(packed, "free_memory", lambda: 2 * (12 * 7 * 2) / packed.ROOM - 1)
    assert type(held(monkeypatch, blocks=True)) is nn.Linear
    monkeypatch.setattr(packed, "free_memory", lambda: 2 * (12 * 7 * 2) / packed.ROOM)
    assert type(held(monkeypatch, blocks=True)) is FrozenLinear


@needs_blocks
@pytest.mark.parametrize("shape", [(1536, 576), (576, 1536), (192, 576), (4000, 96)])
def test_what_is_laid_out_gives_the_same_bits_for_rows_that_were_not_tried(shape):
    if not can_pack(shape):
        pytest.skip("blocks of this shape are summed in another order here, so it is not laid out")
    torch.manual_seed(0)
    weight = torch.randn(shape).bfloat16()
    plain, blocks = packed.Plain(weight, None), packed.Packed(weight, None)
    for rows in (2, 33, 128):
        there, back = torch.randn(rows, shape[1]).bfloat16(), torch.randn(rows, shape[0]).bfloat16()
        assert torch.equal(plain.there(there), blocks.there(there))
        assert torch.equal(plain.back(back), blocks.back(back))


@needs_blocks
@pytest.mark.parametrize("length", SHAPE, ids=["back", "there"])
def test_a_shape_that_gives_other_bits_one_way_is_not_laid_out(monkeypatch, length):
    honest = packed._times
    assert packed._same_bits.__wrapped__(*SHAPE, 1)

    def summed_in_another_order(rows, blocks, bias):
        found = honest(rows, blocks, bias)
        return found * (1 + 2**-7) if rows.shape == (packed.PROBED[-1], length) else found

    monkeypatch.setattr(packed, "_times", summed_in_another_order)
    assert not packed._same_bits.__wrapped__(*SHAPE, 1)


@needs_blocks
def test_each_shape_is_tried_once_and_those_that_hold_are_laid_out(monkeypatch):
    tried = []
    packed._same_bits.cache_clear()
    honest = packed.Plain.there
    monkeypatch.setattr(
        packed.Plain, "there", lambda self, rows: tried.append(tuple(self._weight.shape)) or honest(self, rows)
    )
    bent = packed._times
    monkeypatch.setattr(
        packed,
        "_times",
        lambda rows, *rest: bent(rows, *rest) + (rows.shape[1] == 5),  # the way there of the second
    )
    model = nn.Sequential(nn.Linear(12, 7), nn.Linear(5, 9), nn.Linear(12, 7)).requires_grad_(requires_grad=False)
    hold_in_half(model)
    packed._same_bits.cache_clear()
    assert [type(layer) for layer in model] == [FrozenLinear, nn.Linear, FrozenLinear]
    assert tried == [(7, 12)] * len(packed.PROBED) + [(9, 5)]


@pytest.mark.parametrize("broken", ["_reorder_linear_weight", "_linear_pointwise"])
def test_where_an_operator_is_missing_nothing_is_laid_out(monkeypatch, broken):
    ops = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True)
    for name in {"_reorder_linear_weight", "_linear_pointwise"} - {broken}:
        setattr(ops, name, getattr(torch.ops.mkldnn, name))
    monkeypatch.setattr(packed.torch.ops, "mkldnn", ops)
    assert not packed._same_bits.__wrapped__(*SHAPE, 1)


@needs_blocks
def test_an_adapted_layer_over_blocks_is_what_it_is_over_the_matrix(monkeypatch):
    found = []
    for blocks in (False, True):
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(12, 7))
        model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
        use_one_product(model)
        monkeypatch.setattr(packed, "can_pack", lambda shape, blocks=blocks: blocks)
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
