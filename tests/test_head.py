"""Log-probabilities from the LM head in chunks are those from all logits at once."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from workbench.models import head as heads
from workbench.models.forward import collate, completion_logits, completion_logps, completion_states, logps_from
from workbench.models.head import DirectHead, Seen, token_logps
from workbench.models.sharing import layout_of
from workbench.models.tokens import Encoded

GATED = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 4}  # fmt: skip
EXAMPLES = [Encoded((1, 2, 3), (4, 5)), Encoded((1, 2, 3), (7, 8, 9)), Encoded((2,), (1,))]


@pytest.fixture(autouse=True)
def chunks_of_two(monkeypatch):
    monkeypatch.setattr(heads, "CHUNK", 2)


def a_head(*, bias, trained, dtype=torch.float64):
    torch.manual_seed(0)
    return DirectHead(6, 11, bias=bias, dtype=dtype).requires_grad_(trained)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_chunks_change_no_log_probability_and_no_gradient(bias, trained, tokens):
    head = a_head(bias=bias, trained=trained)
    hidden = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.arange(tokens) * 2, torch.arange(1.0, tokens + 1, dtype=torch.float64)
    wanted = (hidden, *(p for p in head.parameters() if p.requires_grad))
    assert len(wanted) == 1 + trained * (1 + bias)
    whole = -F.cross_entropy(F.linear(hidden, head.weight, head.bias), targets, reduction="none")
    found = token_logps(head, hidden, targets)
    assert torch.allclose(found, whole, atol=1e-12, rtol=0)
    for ours, theirs in zip(*(torch.autograd.grad((f * weights).sum(), wanted) for f in (found, whole)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("certain", [False, True])
def test_in_bfloat16_the_gradient_is_right_even_of_a_token_that_is_almost_certain(certain):
    """Its probability rounds to one in bfloat16, what is missing from one does not."""
    head = a_head(bias=True, trained=False, dtype=torch.float32)
    if certain:
        head.bias.data[3] = 8.0
    hidden = torch.randn(4, 6, requires_grad=True)
    targets = torch.full((4,), 3)
    exact = torch.autograd.grad(token_logps(head, hidden, targets).sum(), hidden)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logps(head, hidden, targets)
        assert found.dtype == torch.float32
        rough = torch.autograd.grad(found.sum(), hidden)[0]
    assert bool(exact.abs().max() < 0.01) is certain
    assert (rough - exact).abs().max() <= 0.03 * exact.abs().max()


def test_the_model_says_the_same_and_its_head_is_given_nothing():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**GATED)).eval().requires_grad_(requires_grad=False)
    rows = collate(EXAMPLES, pad_id=0)
    before = completion_logps(model, rows)
    layout_of(model)
    head, seen = model.get_output_embeddings(), []
    head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    assert torch.allclose(completion_logps(model, rows), before, atol=1e-5)
    assert seen == [(1, 0, 16)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gemma2ForCausalLM(Gemma2Config(**GATED, final_logit_softcapping=1.0)),
        lambda: CohereForCausalLM(CohereConfig(**GATED, logit_scale=0.1)),
    ],
    ids=["capped", "scaled"],
)
def test_a_model_that_changes_what_its_head_says_keeps_it(make):
    torch.manual_seed(0)
    model = make().eval()
    model.get_output_embeddings().weight.data *= 50  # so that capping is no rounding
    before = completion_logps(model, collate(EXAMPLES, pad_id=0, layout="plain"))
    layout = layout_of(model)
    assert not isinstance(model.get_output_embeddings(), DirectHead)
    assert torch.allclose(completion_logps(model, collate(EXAMPLES, pad_id=0, layout=layout)), before, atol=1e-4)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("certain", [1.0, 3.0])
def test_what_is_told_of_distributions_is_that_of_hand_worked_ones(trained, certain):
    """Logits ln 2, ln 1, ln 1 are probabilities 1/2, 1/4, 1/4: 1.5 ln 2 nats; of another token, e^3 : 1 : 1."""
    head = DirectHead(2, 3, bias=False).requires_grad_(trained)
    head.weight.data[:] = torch.tensor([[math.log(2), certain], [0.0, 0.0], [0.0, 0.0]])
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    targets, seen = torch.tensor([0, 1, 0]), Seen.of(3)
    found = token_logps(head, hidden, targets, seen)
    total = math.exp(certain) + 2
    of_third = math.log(total) - certain * math.exp(certain) / total
    assert seen.entropy.tolist() == pytest.approx([1.5 * math.log(2)] * 2 + [of_third], abs=1e-6)
    assert seen.likeliest.tolist() == [1, 0, 1]
    without = token_logps(head, hidden, targets)
    assert torch.equal(found, without)
    assert not seen.entropy.requires_grad
    assert torch.equal(*(torch.autograd.grad(each.sum(), hidden)[0] for each in (found, without)))
    assert seen.likeliest.tolist() == [1, 0, 1]  # computed again on the way back, they are the same


def test_distributions_of_a_head_that_is_not_called_directly_are_told_too():
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**GATED, final_logit_softcapping=1.0)).eval()
    layout_of(model)
    rows, seen = collate(EXAMPLES, pad_id=0), Seen.of(6)
    logps_from(completion_states(model, rows), rows, seen)
    logits = completion_logits(model, rows).logits
    assert torch.allclose(seen.entropy, torch.distributions.Categorical(logits=logits).entropy(), atol=1e-5)
    assert torch.equal(seen.likeliest, (logits.argmax(-1) == rows.targets).float())
