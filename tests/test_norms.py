"""Norms in the precision of products: the same forward pass to the bit, gradients within its rounding, and only where it is safe."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from tests.tiny_model import build_tiny_model
from workbench.config import TrainingSettings
from workbench.models.load import trainable
from workbench.models.norms import _Norm, frozen_norms, lower
from workbench.models.sharing import layout_of
from workbench.tasks import PolicyRef

SIZE = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
IDS = torch.tensor([[3, 5, 8, 13, 21]])


def llama(kind=LlamaForCausalLM):
    torch.manual_seed(0)
    model = kind(LlamaConfig(**SIZE)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    return model.requires_grad_(requires_grad=False)


def lowered(model):
    return [
        name
        for name, module in model.named_modules()
        if any(kind.__name__ == "_LowNorm" for kind in type(module).__mro__)
    ]


def states(model, given):
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        return model.model(inputs_embeds=given).last_hidden_state


def test_no_bit_of_a_forward_pass_changes_and_gradients_only_in_rounding():
    plain, low = llama(), llama()
    layout_of(low)
    assert lowered(low) == [
        f"model.layers.{k}.{name}" for k in (0, 1) for name in ("input_layernorm", "post_attention_layernorm")
    ]
    gradients = []
    for model in (plain, low):
        given = plain.get_input_embeddings()(IDS).clone().requires_grad_()
        found = states(model, given)
        found.square().sum().backward()
        gradients.append(given.grad)
        assert torch.equal(found, states(plain, given))
    # Sums of gradients are rounded to eight bits where they were not.
    assert torch.allclose(*gradients, rtol=0.02, atol=0.02 * gradients[0].abs().max().item())
    assert not torch.equal(*gradients)


def test_a_norm_answers_in_the_precision_of_products():
    model = llama()
    layout_of(model)
    norm, x = model.model.layers[0].input_layernorm, torch.randn(1, 3, 16)
    assert norm(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(x).dtype == torch.bfloat16
        norm.weight.requires_grad_()
        assert norm(x).dtype == torch.float32, "one that is trained stays as it was"


def test_the_way_back_is_the_gradient():
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _Norm.apply(x, weight, 1e-6, torch.float64), (x,))


class ReadsTwice(LlamaDecoderLayer):
    """Adds what its norm says to the stream, as some architectures do."""

    def forward(self, hidden_states, *args, **kwargs):
        return super().forward(hidden_states, *args, **kwargs) + self.input_layernorm(hidden_states)


def test_what_something_else_reads_stays_as_it_is():
    model = llama()
    for layer in model.model.layers:
        layer.__class__ = ReadsTwice
    layout_of(model)
    assert lowered(model) == [f"model.layers.{k}.post_attention_layernorm" for k in (0, 1)]


def test_norms_of_another_formula_stay_as_they_are():
    model = Gemma2ForCausalLM(Gemma2Config(**SIZE, num_key_value_heads=2, head_dim=4)).eval()
    assert frozen_norms(model) == []


def test_adapted_layers_read_it_too(tmp_path):
    path = str(build_tiny_model(tmp_path))
    model = trainable(PolicyRef("b" * 64, "full", path, "b" * 64, path, "tok"), TrainingSettings(rank=4))
    layout_of(model)
    assert len(lowered(model)) == 2 * model.config.num_hidden_layers
    layout_of(model)
    assert len(lowered(model)) == 2 * model.config.num_hidden_layers


@pytest.mark.parametrize("eps", [1e-6, 1e-3])
def test_the_formula_is_told_from_others_by_its_bits(eps):
    class HalfRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states):
            return super().forward(hidden_states) / 2

    assert frozen_norms(torch.nn.Sequential(LlamaRMSNorm(4, eps=eps))) != []
    assert frozen_norms(torch.nn.Sequential(HalfRMSNorm(4, eps=eps))) == []


def test_lowering_twice_is_lowering_once():
    norm = LlamaRMSNorm(4)
    lower([norm])
    assert frozen_norms(torch.nn.Sequential(norm)) == []
