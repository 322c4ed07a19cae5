"""What of a batch fits into memory: counted, decided, and without any change of what is learnt."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_model import build_tiny_model
from workbench.config import NumericsSettings, TrainingSettings
from workbench.models import free
from workbench.models.free import free_memory
from workbench.models.load import trainable
from workbench.models.numerics import apply_numerics
from workbench.models.packed import hold_in_half
from workbench.models.sharing import layout_of
from workbench.tasks import PolicyRef
from workbench.training.batches import batch_tokens, passes
from workbench.training.memory import STATES_BYTES, USED, fit, kept_of, logits_kept


def row(prompt, chosen, rejected):
    return {"prompt": [1] * prompt, "chosen": [2] * chosen, "rejected": [3] * rejected}


ROWS = [row(2, 3, 1), row(10, 5, 5), row(4, 3, 3), row(9, 4, 5)]
"""6, 20, 10 and 18 tokens; a row per answer, twice the longer: 10, 30, 14 and 28."""


@pytest.mark.parametrize(
    ("layout", "tokens", "expected"),
    [
        ("packed", 54, [[1, 3, 2, 0]]),
        ("packed", 53, [[1, 3, 2], [0]]),
        ("packed", 38, [[1, 3], [2, 0]]),
        ("packed", 37, [[1], [3, 2, 0]]),
        ("packed", 1, [[1], [3], [2], [0]]),
        ("shared", 60, [[1, 3, 2], [0]]),
        ("shared", 59, [[1, 3], [2, 0]]),
        ("plain", 1000, [[1, 3], [2, 0]]),
        ("plain", 59, [[1], [3, 2], [0]]),
    ],
)
def test_passes_hold_similar_pairs_and_no_more_tokens_than_fit(layout, tokens, expected):
    assert passes(ROWS, layout=layout, tokens=tokens) == expected


def test_tokens_of_a_batch():
    assert [batch_tokens(ROWS, layout) for layout in ("packed", "shared", "plain")] == [54, 80, 120]


@pytest.fixture
def parent(tmp_path):
    folder = str(build_tiny_model(tmp_path / "model", hidden=64))
    return PolicyRef("b" * 64, "full", folder, "b" * 64, folder, "tok")


def model_of(parent, method="lora"):
    model = trainable(parent, TrainingSettings(method=method, rank=4, alpha=8))
    layout_of(model)
    return model.train()


class Tanhs(torch.nn.Module):
    """Hidden states of 8 numbers through `depth` times tanh, each of which keeps what it returned."""

    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(vocab_size=50))
    device = torch.device("cpu")

    def __init__(self, depth):
        super().__init__()
        self.embed, self.head, self.depth = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 50, bias=False), depth

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, **_):
        hidden = self.embed(input_ids)
        for _ in range(self.depth):
            hidden = hidden.tanh()
        return SimpleNamespace(logits=self.head(hidden))


def test_what_is_kept_is_what_autograd_saves():
    three, five = (kept_of(Tanhs(depth), "packed").per_token for depth in (3, 5))
    assert five - three == 2 * 8 * 4


def test_counting_lets_go_of_model_and_activations(parent):
    model = model_of(parent)
    kept_of(model, "packed")
    gone = weakref.ref(next(p for p in model.parameters() if p.requires_grad))
    del model
    gc.collect()
    assert gone() is None


def test_recomputing_keeps_the_inputs_of_layers_only(parent):
    model = model_of(parent)
    kept = kept_of(model, "packed").per_token
    model.activation_checkpointing_enable({"use_reentrant": False})
    less = kept_of(model, "packed").per_token
    assert less < kept / 4
    assert less >= 2 * 64 * 4, "two layers of 64 float32 numbers"


def test_bfloat16_keeps_less(parent):
    single, half = model_of(parent), model_of(parent)
    hold_in_half(half)
    with apply_numerics(NumericsSettings(dtype="bfloat16", threads=1)):
        less = kept_of(half, "packed").per_token
    assert less < 0.8 * kept_of(single, "packed").per_token


def test_weights_converted_for_a_pass_are_kept_whatever_its_tokens():
    """The trained head's 50 x 8 numbers, at 2 bytes each in bfloat16."""
    with apply_numerics(NumericsSettings(dtype="bfloat16", threads=1)):
        converted = kept_of(Tanhs(3), "packed").always
    assert converted >= 50 * 8 * 2 > kept_of(Tanhs(3), "packed").always


def test_first_all_is_kept_then_recomputed_then_split(parent):
    model = model_of(parent)
    kept = kept_of(model, "packed").per_token
    states = STATES_BYTES * sum(p.numel() for p in model.parameters() if p.requires_grad)
    batches = [300, 1000, 700]

    def decided(share_of_need):
        fresh = model_of(parent)
        found = fit(fresh, batches, layout="packed", free=states + round(share_of_need * 1000 * kept / USED))
        assert fresh.is_activation_checkpointing == found.recompute
        return found

    enough = decided(1.01)
    assert not enough.recompute
    assert enough.tokens >= 1000
    tight = decided(0.9)
    assert tight.recompute
    assert tight.tokens >= 1000
    split = decided(0.1)
    assert split.recompute
    assert 1 <= split.tokens < 1000
    assert decided(-1.0) == (1, True), "with no memory at all it still tries, a pair at a time"


def test_logits_that_a_kl_keeps_under_a_trained_head_take_their_room(parent):
    frozen, trained = model_of(parent), model_of(parent, "full")
    words = trained.get_output_embeddings().weight.shape[0]
    assert (logits_kept(frozen), logits_kept(trained)) == (0, 4 * words)
    states = STATES_BYTES * sum(p.numel() for p in trained.parameters())
    kept = kept_of(trained, "packed")
    free = states + round((kept.always + 100.5 * (kept.per_token + 2 * 4 * words)) / USED)
    assert fit(trained, [100], layout="packed", free=free, others=2) == (100, False)
    assert fit(trained, [100], layout="packed", free=free).tokens > 100
    assert fit(trained, [100], layout="packed", free=free, others=3).recompute


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    assert free_memory() > 0
    for name, text in (("max", "1000000"), ("current", "700000"), ("stat", "anon 500000\ninactive_file 100000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(free, "_control_groups", lambda: [tmp_path / "absent", tmp_path])
    assert free_memory() == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 400_000
