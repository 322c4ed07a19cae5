"""Rotary positions in the precision of products: what is rounded afterwards anyway, and only where the formula is known."""

import pytest
import torch
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb

from workbench.models.rotary import _Turn, _turn, use_own_rotation

SIZE = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
        "num_key_value_heads": 2}  # fmt: skip
KINDS = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}
IDS = torch.tensor([[3, 5, 8, 13, 21]])


def model_of(kind):
    torch.manual_seed(0)
    model, config = KINDS[kind]
    return model(config(**SIZE)).eval()


def run(model, *, half):
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half, cache_enabled=False):
        found = model.model(IDS).last_hidden_state
    found.square().sum().backward()
    return found.detach(), model.get_input_embeddings().weight.grad.clone()


def rotates_ours(model):
    return sum(type(module).forward.__globals__["apply_rotary_pos_emb"] is not apply_rotary_pos_emb
               for module in model.modules() if isinstance(module, LlamaAttention))  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_of_a_forward_pass_changes_and_gradients_only_in_rounding(kind):
    theirs, ours = model_of(kind), model_of(kind)
    use_own_rotation(ours)
    for a, b in zip(run(theirs, half=False), run(ours, half=False), strict=True):
        assert torch.equal(a, b)
    (said, gradient), (ours_said, ours_gradient) = run(theirs, half=True), run(ours, half=True)
    assert torch.equal(said, ours_said), "attention rounds what it is given to bfloat16"
    assert not torch.equal(gradient, ours_gradient), "nothing was replaced"
    assert torch.allclose(gradient, ours_gradient, rtol=0.02, atol=0.02 * gradient.abs().max().item())


def test_other_models_of_the_process_stay_as_they_are():
    theirs, ours = model_of("llama"), model_of("llama")
    use_own_rotation(ours)
    use_own_rotation(ours)  # once more changes nothing
    assert (rotates_ours(theirs), rotates_ours(ours)) == (0, 2)
    assert type(ours.model.layers[0].self_attn).__mro__[1] is LlamaAttention


def test_a_pair_half_a_head_apart_is_turned():
    # Sizes 2 and angle 90 degrees: (3, 4) becomes (-4, 3).
    x, cos, sin = torch.tensor([[[[3.0, 4.0]]]]), torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    assert torch.equal(_turn(x, cos, sin), torch.tensor([[[[-4.0, 3.0]]]]))


def test_it_is_their_formula_rounded_once():
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 5, 8, generator=draw) for heads in (4, 2))
    cos, sin = (torch.randn(2, 5, 8, generator=draw) for _ in range(2))
    for each, theirs in zip((query, key), apply_rotary_pos_emb(query, key, cos, sin), strict=True):
        assert torch.allclose(_Turn.apply(each, cos, sin), theirs, atol=1e-6)
        low = _Turn.apply(each.bfloat16(), cos, sin)
        assert low.dtype == torch.bfloat16
        assert torch.allclose(low.float(), theirs, atol=0.06)


def test_the_way_back_is_the_gradient():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    cos, sin = (torch.randn(1, 3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: _Turn.apply(x, cos, sin), (x,))


def test_neighbours_that_are_turned_stay_theirs():
    model = GlmForCausalLM(GlmConfig(**SIZE, head_dim=4, pad_token_id=0)).eval()
    kinds = [type(module) for module in model.modules()]
    use_own_rotation(model)
    assert [type(module) for module in model.modules()] == kinds
