"""In every layout completions have the log-probabilities and gradients they have alone."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from preference_data.records import Pair, Prompt
from tests.tiny_model import build_tiny_model
from workbench.config import TrainingSettings
from workbench.models import attention, sharing
from workbench.models.flex import Piece
from workbench.models.forward import (
    MOST_SHARED,
    WORTH_A_HEAD,
    batches_by_length,
    collate,
    completion_logits,
    completion_logps,
)
from workbench.models.load import load_full, load_tokenizer, trainable
from workbench.models.packed import hold_in_half
from workbench.models.sharing import layout_of
from workbench.models.tokens import Encoded, encode_pair
from workbench.tasks import PolicyRef

SIZE = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {**SIZE, "intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 4}


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def packing(model):
    assert layout_of(model) == "packed"
    return model


@pytest.fixture(scope="module")
def llama():
    return packing(seeded(lambda: LlamaForCausalLM(LlamaConfig(**GATED)))).double()


@pytest.fixture(scope="module")
def gpt2():
    """All of it in float64; Llama normalises in float32 whatever it is given."""
    return packing(seeded(lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=4)))).double()


TOKENS = st.lists(st.integers(1, 31), min_size=1, max_size=6).map(tuple)
PROMPTS = st.lists(TOKENS, min_size=1, max_size=3)


@pytest.mark.parametrize("layout", ["shared", "packed"])
@given(data=st.data())
@settings(max_examples=40)
def test_no_layout_changes_a_log_probability(llama, layout, data):
    prompts = data.draw(PROMPTS)
    examples = data.draw(st.lists(st.builds(Encoded, st.sampled_from(prompts), TOKENS), min_size=1, max_size=20))
    with torch.no_grad():
        together = completion_logps(llama, collate(examples, pad_id=0, layout=layout))
        alone = [completion_logps(llama, collate([e], pad_id=0, layout="plain")).item() for e in examples]
    assert torch.allclose(together, torch.tensor(alone, dtype=torch.float64), atol=1e-8, rtol=0)


BEGINNINGS = st.sampled_from([(), tuple(range(3, 15)), tuple(range(3, 12))])


@given(data=st.data())
@settings(max_examples=40)
def test_what_prompts_begin_with_is_computed_once_and_changes_nothing(llama, data):
    begin = data.draw(BEGINNINGS)
    prompts = [begin + own for own in data.draw(st.lists(TOKENS, min_size=1, max_size=4, unique=True))]
    examples = data.draw(st.lists(st.builds(Encoded, st.sampled_from(prompts), TOKENS), min_size=1, max_size=12))
    rows = collate(examples, pad_id=0, layout="packed")
    with torch.no_grad():
        together = completion_logps(llama, rows)
        alone = [completion_logps(llama, collate([e], pad_id=0, layout="plain")).item() for e in examples]
    assert torch.allclose(together, torch.tensor(alone, dtype=torch.float64), atol=1e-8, rtol=0)
    used = {e.prompt for e in examples}
    if len(used) > 1 and len(begin) >= WORTH_A_HEAD and all(len(p) > len(begin) for p in used):
        assert rows.input_ids[0].tolist()[: len(begin)] == [*begin]
        places = rows.position_ids[0].tolist()
        assert places.count(0) == 1  # the beginning is there once


def test_a_prompt_keeps_its_last_token_to_itself(llama):
    """One prompt is the beginning of the other: what predicts its answer is not shared."""
    short, long = tuple(range(3, 15)), tuple(range(3, 17))
    examples = [Encoded(short, (1,)), Encoded(long, (2, 1))]
    rows = collate(examples, pad_id=0, layout="packed")
    assert rows.input_ids[0].tolist() == [*range(3, 14), 14, 1, 14, 15, 16, 2, 1]
    assert rows.sources.tolist() == [[0, 0, 0], [11, 15, 16]]
    alone = [completion_logps(llama, collate([e], pad_id=0, layout="plain")).item() for e in examples]
    assert completion_logps(llama, rows).tolist() == pytest.approx(alone, abs=1e-8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return packing(load_full(str(folder))).double(), load_tokenizer(str(folder))


TEXTS = st.lists(st.sampled_from(["yes", "no", "tea", "moon", "?", "a b", "\n", "é"]), max_size=12).map(" ".join)


@given(prompt=TEXTS, answer=TEXTS, other=st.integers(0, 40) | TEXTS, limit=st.integers(8, 60))
@settings(max_examples=60, deadline=None)
@example(prompt="", answer="", other="yes", limit=60)
@example(prompt="tea", answer="yes no", other=60, limit=60)  # the same answer twice
@example(prompt="tea", answer="yes no", other=3, limit=60)  # one answer begins the other
@example(prompt="tea " * 5, answer="moon " * 30, other="moon " * 29, limit=40)  # cut to the same tokens
def test_no_layout_changes_a_pair_however_odd(tiny, prompt, answer, other, limit):
    """Empty prompts and answers, equal answers, beginnings of each other, cut off at any length."""
    model, tokenizer = tiny
    rejected = answer[:other] if isinstance(other, int) else other
    pair = Pair(Prompt.of(prompt), answer, rejected, 1.0, None, (), {}, "train")
    both = encode_pair(tokenizer, pair, max_length=limit)
    if both is None:
        return
    found = {}
    for layout in ("plain", "shared", "packed"):
        logps = completion_logps(model, collate(both, pad_id=0, layout=layout))
        gradient = torch.autograd.grad(logps[0] - logps[1], model.get_output_embeddings().weight)[0]
        found[layout] = logps, gradient
    for layout in ("shared", "packed"):
        for ours, alone in zip(found[layout], found["plain"], strict=True):
            assert torch.allclose(ours, alone, atol=1e-6, rtol=0)
    if both.chosen == both.rejected:
        assert torch.allclose(*found["packed"][0], atol=1e-9, rtol=0)


def test_no_layout_changes_a_gradient(gpt2):
    alike = tuple(range(1, 11))
    examples = [Encoded((*alike, 2, 3), c) for c in ((4, 5), (6,), (7, 8, 9))] + [Encoded((*alike, 1), (3, 3))]
    gradients = {}
    for layout in ("plain", "shared", "packed"):
        gpt2.zero_grad()
        found = completion_logps(gpt2, collate(examples, pad_id=0, layout=layout))
        (found * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum().backward()
        gradients[layout] = {name: p.grad.clone() for name, p in gpt2.named_parameters()}
    alone = gradients.pop("plain")
    for layout, found in gradients.items():
        assert found.keys() == alone.keys()
        for name, gradient in found.items():
            assert gradient.abs().max() > 0, name
            assert torch.allclose(gradient, alone[name], atol=1e-8, rtol=0), (layout, name)


SPANS = [Piece(*each) for each in ((0, 3, 0, 0), (3, 5, 0, 3), (5, 8, 0, 3), (8, 9, 8, 8), (9, 13, 8, 9))]
"""Two prompts, of three tokens and of one; two completions of the first, one of the second."""


BEGUN_ALIKE = [Piece(0, 2, 0, 0), Piece(2, 3, 2, 2, 2), Piece(3, 5, 2, 3, 2), Piece(5, 6, 2, 3, 2), Piece(6, 8, 6, 6, 2),
               Piece(8, 13, 6, 8, 2)]  # fmt: skip
"""Two prompts that begin with the same two tokens; two completions of the first, one of the second."""


@pytest.mark.parametrize("spans", [SPANS, BEGUN_ALIKE])
@pytest.mark.parametrize(("kept", "rows"), [(400 * 400, 256), (400 * 400, 2), (400 * 400, 4), (9, 256), (0, 256)])
def test_pieces_give_what_a_mask_over_the_whole_row_gives(spans, kept, rows, monkeypatch):
    """Whether attention is kept, computed again, or in blocks of positions."""
    monkeypatch.setattr(attention, "KEPT", kept)
    monkeypatch.setattr(attention, "ROWS", rows)
    _forget_blocks()
    mask = torch.zeros(13, 13, dtype=torch.bool)
    for start, end, prompt, border, head in spans:
        for at in range(start, end):
            mask[at, :head] = mask[at, prompt:border] = mask[at, start : at + 1] = True
    torch.manual_seed(0)
    given = [torch.randn(1, heads, 13, 8, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2)]
    weights = torch.randn(1, 13, 6, 8, dtype=torch.float64)
    query, key, value = given
    repeated = [each.repeat_interleave(3, dim=1) for each in (key, value)]
    whole = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3).transpose(
        1, 2
    )
    packed, _ = attention.attend(None, *given, attention.pieces(spans), scaling=0.3)
    assert torch.allclose(packed, whole, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad((found * weights).sum(), given) for found in (packed, whole)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12, rtol=0)
    with torch.no_grad():
        read = attention._attend_only(given, tuple(spans), 0.3)
    assert torch.allclose(read, whole, atol=1e-12, rtol=0)
    _forget_blocks()


def _forget_blocks():
    """Of other limits."""
    attention._blocks.cache_clear()
    attention._hidden.cache_clear()


def test_attention_in_bfloat16_is_near_that_in_float32():
    torch.manual_seed(0)
    given = [torch.randn(1, heads, 13, 8, requires_grad=True) for heads in (6, 2, 2)]
    weights = torch.randn(1, 13, 6, 8)
    found = []
    for value in (given[2], given[2].to(torch.bfloat16)):
        packed, _ = attention.attend(None, *given[:2], value, attention.pieces(SPANS), scaling=0.3)
        with torch.no_grad():
            read, _ = attention.attend(None, *given[:2], value, attention.pieces(SPANS), scaling=0.3)
        assert packed.dtype == read.dtype == value.dtype
        found.append([packed, read, *torch.autograd.grad((packed * weights).sum(), given)])
    for wide, low in zip(*found, strict=True):
        # bfloat16 has eight bits: each rounding is within 0.4 % of the largest number there
        assert (wide - low).abs().max() <= 0.02 * wide.abs().max()


def test_matrices_held_in_bfloat16_change_no_product():
    found = []
    for held in (False, True):
        model = packing(seeded(lambda: LlamaForCausalLM(LlamaConfig(**GATED))))
        model.requires_grad_(requires_grad=False)
        if held:
            hold_in_half(model)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            found.append(completion_logps(model, collate([Encoded((1, 2, 3), (4, 5, 6))], pad_id=0, layout="packed")))
    assert torch.equal(*found)
    assert model.get_input_embeddings().weight.dtype == torch.float32


class OwnAttention(LlamaForCausalLM):
    """Stands for models that take any mask but do not let others compute their attention."""

    _supports_attention_backend = False


def test_the_layout_by_hand():
    rows = collate([Encoded((1, 2), (3, 4)), Encoded((5,), (6,)), Encoded((1, 2), (7,))], pad_id=0)
    assert rows.input_ids.tolist() == [[1, 2, 3, 4, 7], [5, 6, 0, 0, 0]]
    # the second completion of the first row starts again where the prompt ended
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    assert rows.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    # the last token of the prompt predicts the first of each completion
    assert rows.sources.T.tolist() == [[0, 1], [0, 2], [1, 0], [0, 1]]
    assert (rows.targets.tolist(), rows.example.tolist()) == ([3, 4, 6, 7], [0, 0, 1, 2])


def test_the_packed_layout_by_hand():
    rows = collate([Encoded((1, 2), (3, 4)), Encoded((5,), (6,)), Encoded((1, 2), (7,))], pad_id=0, layout="packed")
    # one row, nothing padded: the first prompt with both of its completions, then the second
    assert rows.input_ids.tolist() == [[1, 2, 3, 4, 7, 5, 6]]
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    # prompts see themselves; completions see their prompt, from where to where, as well
    assert rows.attention_mask[0, 0].tolist() == [
        [0, 2, 0, 0, 0], [2, 4, 0, 2, 0], [4, 5, 0, 2, 0], [5, 6, 5, 5, 0], [6, 7, 5, 6, 0],
    ]  # fmt: skip
    assert rows.sources.T.tolist() == [[0, 1], [0, 2], [0, 5], [0, 1]]
    assert (rows.targets.tolist(), rows.example.tolist()) == ([3, 4, 6, 7], [0, 0, 1, 2])


def test_a_row_is_shared_by_few_and_only_where_the_prompt_is_worth_it():
    many = [Encoded((1, 2), (k + 1,)) for k in range(MOST_SHARED + 1)]
    assert collate(many, pad_id=0).input_ids.shape == (2, 2 + MOST_SHARED)
    # up to sixteen tokens of completions are worth a prompt of two
    for lengths, shape in (((8, 8), (1, 18)), ((8, 9), (2, 11)), ((17, 1), (2, 19))):
        rows = collate([Encoded((1, 2), (3,) * n) for n in lengths], pad_id=0)
        assert rows.input_ids.shape == shape
        assert rows.attention_mask.dim() == (4 if shape[0] == 1 else 2)


def test_batches_keep_together_what_shares_a_row():
    examples = [Encoded((1, 2), (3,)), Encoded((4, 5, 6), (7,)), Encoded((1, 2), (8,))]
    # rows: examples 0 and 2 are four tokens long, example 1 too
    assert list(batches_by_length(examples, size=2)) == [[0, 2], [1]]
    assert list(batches_by_length(examples, size=3)) == [[0, 2, 1]]


def test_batches_of_a_model_that_shares_nothing_count_every_prompt():
    examples = [Encoded((1,) * 8, (k,)) for k in range(1, 5)]
    assert list(batches_by_length(examples, size=4, tokens=18)) == [[0, 1, 2, 3]]  # one row of 12 tokens
    assert list(batches_by_length(examples, size=4, tokens=18, layout="plain")) == [[0, 1], [2, 3]]  # two rows of 9
    assert list(batches_by_length(examples, size=3, tokens=99)) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("autocast", [False, True])
def test_an_adapter_in_training_shares_too(autocast):
    base = seeded(lambda: LlamaForCausalLM(LlamaConfig(**GATED)))
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    packing(model)
    assert model.training
    examples = [Encoded((1, 2, 3, 4), (5, 6)), Encoded((1, 2, 3, 4), (7, 8, 9))]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        alone, *others = (
            completion_logps(model, collate(examples, pad_id=0, layout=k)) for k in ("plain", "shared", "packed")
        )
    for found in others:
        assert torch.allclose(found, alone, atol=0.1 if autocast else 1e-4)


def test_the_head_sees_completion_positions_only(llama):
    seen = []
    hook = llama.get_output_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    completion_logits(llama, collate([Encoded((1,) * 9, (2, 3)), Encoded((1,) * 9, (4,))], pad_id=0))
    hook.remove()
    assert seen == [(1, 3, 16)]


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        (lambda: LlamaForCausalLM(LlamaConfig(**GATED)), "packed"),
        (lambda: OwnAttention(LlamaConfig(**GATED)), "shared"),
        (lambda: Qwen3ForCausalLM(Qwen3Config(**GATED)), "packed"),
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=64)), "packed"),
        (lambda: MistralForCausalLM(MistralConfig(**GATED, sliding_window=8)), "plain"),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=4)), "plain"),
    ],
    ids=["llama", "own attention", "qwen3", "gpt2", "sliding window", "alibi"],
)  # fmt: skip
def test_models_that_would_answer_differently_are_found(make, layout):
    model = seeded(make)
    assert layout_of(model) == layout
    examples = [Encoded((1, 2, 3, 4), (5, 6)), Encoded((1, 2, 3, 4), (7, 8, 9, 1, 2, 3))]
    with torch.no_grad():
        found = completion_logps(model, collate(examples, pad_id=0, layout=layout))
        alone = torch.cat([completion_logps(model, collate([e], pad_id=0)) for e in examples])
    assert torch.allclose(found, alone, atol=1e-4)


class InFourBits(torch.nn.Linear):
    """Multiplies in a precision of its own, as the layers of bitsandbytes do; how it rounds depends on how many rows there are."""

    compute_dtype = torch.bfloat16

    def forward(self, x):
        off = 16 * torch.finfo(self.compute_dtype).eps * (x.shape[1] % 2)  # the probe in one row is of another length
        return super().forward(x) * (1 + off)


def test_layers_that_multiply_in_a_precision_of_their_own_change_no_layout():
    model = seeded(lambda: LlamaForCausalLM(LlamaConfig(**GATED)))
    layers = [each for each in model.model.modules() if isinstance(each, torch.nn.Linear)]
    for each in layers:
        each.weight.data *= 10
        each.__class__ = InFourBits
    assert layout_of(model) == "packed"
    assert len(layers) == 14
    assert all(each.compute_dtype == torch.bfloat16 for each in layers)


def test_what_an_adapter_was_taught_does_not_change_the_layout(tmp_path, monkeypatch):
    """Rounding of a steep policy can be more than the probe allows: it is asked without its adapter."""
    path = str(build_tiny_model(tmp_path))
    base = PolicyRef("b" * 64, "full", path, "b" * 64, path, "tok")
    model = trainable(base, TrainingSettings(rank=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(1.0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    asked = []

    def probed(given, layout, real=sharing._probed):
        asked.append(real(given, layout))
        return asked[-1]

    monkeypatch.setattr(sharing, "_probed", probed)
    assert layout_of(model) == "packed"
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    of_base = completion_logps(load_full(path), collate(sharing.PROBE, pad_id=0, layout="plain"))
    of_policy = completion_logps(model.eval(), collate(sharing.PROBE, pad_id=0, layout="plain"))
    assert not torch.allclose(of_base, of_policy, atol=0.1)
    seeing = [answer for answer in asked if not answer.isnan().any()]  # what the last norm says was hidden once
    assert len(seeing) == len(asked) - 1
    assert all(torch.allclose(answer, of_base, atol=1e-4) for answer in seeing)
