"""The bench of speed: what its rates and its share of useful products are made of."""

from types import SimpleNamespace

import pytest

from preference_data.records import Pair, Prompt
from preference_data.versions import write_version
from tests.tiny_model import build_tiny_model
from tests.training_kit import TRAINING, World
from workbench.bench import useful
from workbench.bench.speed import FACTORY, OURS, PEER, TRL, TUNED, Rates, Run, figures, rates, table, tokens_per_pair
from workbench.bench.useful import Counted, counted, products_s, timed_passes
from workbench.config import NumericsSettings, TrainingSettings
from workbench.models.forward import collate
from workbench.models.tokens import Encoded
from workbench.training.batches import PairCollator, batch_of
from workbench.training.optimise import optimise


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model") / "model")


BEGINNING = tuple(range(3, 11))
"""Eight tokens, as many as are worth computing once."""


def in_common():
    """A packed row of two prompts of 8 + 2 and 8 + 3 tokens, with answers of 2 and 1, and of 3 and 1."""
    one, two = (*BEGINNING, 20, 21), (*BEGINNING, 30, 31, 32)
    examples = [Encoded(one, (1, 2)), Encoded(two, (1, 2, 3)), Encoded(one, (4,)), Encoded(two, (5,))]
    return collate(examples, pad_id=0, layout="packed")


def test_a_beginning_in_common_counts_once_in_tokens_and_in_what_is_seen():
    seen = (
        8 * 9 / 2  # the beginning, itself
        + 2 * 8 + 2 * 3 / 2  # the rest of the first prompt: the beginning, and itself
        + 2 * (8 + 2) + 2 * 3 / 2  # its first answer: beginning, rest and itself
        + 1 * (8 + 2) + 1
        + 3 * 8 + 3 * 4 / 2  # the second prompt
        + 3 * (8 + 3) + 3 * 4 / 2
        + 1 * (8 + 3) + 1
    )  # fmt: skip
    assert counted([in_common()]) == Counted(tokens=8 + 2 + 2 + 1 + 3 + 3 + 1, answers=7, seen=seen)


def test_prompts_with_nothing_in_common_count_whole():
    row = collate([Encoded((3, 4), (5,)), Encoded((6,), (7, 8))], pad_id=0, layout="packed")
    # two see 1 + 2, the answer 3; one sees 1, its answer 2 + 3
    assert counted([row, row]) == Counted(tokens=2 * 6, answers=2 * 3, seen=2 * (3 + 3 + 1 + 5))


def test_products_are_those_of_the_layers_the_adapter_the_head_and_attention(model, monkeypatch):
    """Of a model with two layers of width 32, 4 heads of size 8, two of them keys, 64 units and 259 words."""

    def operations(product, numerics, *, blocks=False):
        done = product.batch * product.rows * product.inner * product.columns
        return done / 2 if blocks else done

    monkeypatch.setattr(useful, "timed_passes", lambda job, tokens: ([in_common()] * 6, 3))  # two passes a step
    monkeypatch.setattr(useful, "_seconds", operations)
    job = SimpleNamespace(
        training=TrainingSettings(rank=4), numerics=NumericsSettings(), parent=SimpleNamespace(path=str(model))
    )
    found = products_s(job, 1000)
    tokens, answers, seen = (2 * each for each in counted([in_common()]))
    frozen = 2 * tokens * 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)  # there and back, in two layers
    head = 2 * answers * 32 * 259
    # Six products with the adapter: each of its two sides there, back, and to its own weights.
    adapter = 3 * tokens * 4 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    attention = 2 * 4 * 6 * 8 * seen  # six products of size 8 in two layers with four heads
    assert found.plain == pytest.approx(frozen + head + adapter + attention)
    assert found.blocks == pytest.approx((frozen + head) / 2 + adapter + attention), (
        "frozen matrices alone lie in blocks"
    )


def test_counted_are_the_rows_that_the_steps_after_the_first_computed(tmp_path, monkeypatch):
    world = World(tmp_path)
    job = world.job(training=TRAINING.model_copy(update={"epochs": 1}))  # 24 pairs, 6 batches, 3 steps of two
    laid_out, told = [], []
    lay_out = PairCollator.__call__
    monkeypatch.setattr(
        PairCollator, "__call__", lambda self, rows: laid_out.append(lay_out(self, rows)) or laid_out[-1]
    )
    optimise(job, told.append)
    computed = [batch_of(each).rows.input_ids.tolist() for batch in laid_out[2:] for each in batch["passes"]]
    room = next(progress.facts["tokens_per_pass"] for progress in told if progress.step == "fit")
    passes, steps = timed_passes(job, int(room))
    assert steps == 2
    assert [rows.input_ids.tolist() for rows in passes] == computed
    begins = [rows.position_ids[0].tolist().count(0) for rows in passes]
    assert begins == [1] * 4, "all prompts begin with the same, which is there once"


def test_tokens_of_a_pair_are_those_of_its_prompt_once_and_of_both_answers(model, tmp_path):
    pairs = [Pair(Prompt.of("ab" * k), "yes", "no", 1.0, None, (), {}, "train") for k in (1, 2)]
    version = write_version(pairs, tmp_path / "versions", rule={}, watermark=0, head="")
    work = {"policy": {"base_path": str(model)}, "version": {"path": str(version.path)}}
    # A byte is a token, and so is what opens and closes a turn: <im_start> user \n ab <im_end> \n, <im_start> assistant \n,
    # then yes <im_end> \n and no <im_end> \n.
    prompts = [1 + 4 + 1 + 2 * k + 2 + (1 + 9 + 1) for k in (1, 2)]
    assert tokens_per_pair(work) == sum(prompts) / 2 + (3 + 2) + (2 + 2)


def test_rates_are_those_of_the_medians_with_every_token_counted_once():
    runs = [Run(2.0, 30.0, 1000.0, 0.0), Run(8.0, 10.0, 3000.0, 0.0), Run(1.0, 20.0, 2000.0, 0.0)]
    # batches of 4 pairs in 2 s, each of 250 tokens
    assert rates(runs, 250.0) == Rates(pairs_per_s=2.0, tokens_per_s=500.0, peak_mb=2000.0, round_s=20.0)


FOUND = {
    OURS: Rates(4.0, 1000.0, 500.0, 10.0),
    TRL: Rates(0.5, 125.0, 900.0, 60.0),
    TUNED: Rates(1.25, 312.5, 2000.0, 24.0),
    FACTORY: Rates(1.0, 250.0, 1500.0, 30.0),
}
RUNS = [Run(1.0, 10.0, 500.0, each, each - 0.05) for each in (0.5, 0.75, 0.6)]


def test_every_peer_is_compared_in_training_and_in_a_cold_round():
    found = {each.name: each for each in figures(FOUND, RUNS, "medians of 3")}
    assert {name: (each.value, each.target) for name, each in found.items()} == {
        "training pairs/s over TRL's defaults": (8.0, 6),
        "training pairs/s over TRL tuned": (3.2, 4),
        "training pairs/s over LLaMA-Factory": (4.0, 3.5),
        "speed of a cold round, anchor scored, over TRL's defaults": (6.0, 2.5),
        "speed of a cold round, anchor scored, over TRL tuned": (2.4, 2.5),  # the fastest of them falls short
        "speed of a cold round, anchor scored, over LLaMA-Factory": (3.0, 2.5),
        "peak memory over TRL tuned": (0.25, 0.5),
        "useful-FLOP share in training": (0.6, 0.6),
    }
    assert found["training pairs/s over LLaMA-Factory"].note == (
        "4.00 against 1.00 pairs/s, 1000 against 250 tokens/s, 500 against 1500 MB; medians of 3"
    )
    assert found["speed of a cold round, anchor scored, over TRL tuned"].verdict == "short"


def test_a_peer_that_is_not_there_was_not_measured():
    found = figures({side: each for side, each in FOUND.items() if side != FACTORY}, RUNS, "")
    missing = [each for each in found if each.value is None]
    assert [(each.verdict, each.note) for each in missing] == [("short", f"{PEER} is not set")] * 2
    assert all("LLaMA-Factory" in each.name for each in missing)


def test_the_table_has_a_row_for_every_side():
    assert table(dict(list(FOUND.items())[:2])).splitlines() == [
        "| | pairs/s | tokens/s | most memory, MB | a cold round, s |",
        "|---|---|---|---|---|",
        "| workbench | 4.00 | 1000 | 500 | 10 |",
        "| TRL, its defaults | 0.50 | 125 | 900 | 60 |",
    ]
