"""The bench of tricks: what is switched off is off, and changes no result."""

from importlib import import_module

import pytest
import torch

from preference_data.records import Prompt
from tests.tiny_model import build_tiny_model
from tests.training_kit import TRAINING, World, weights
from workbench.bench import tricks
from workbench.models.growing import Growing, Roomy
from workbench.models.load import Family
from workbench.models.sampling import Sampling, sample
from workbench.tasks import PolicyRef


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(build_tiny_model(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("training"))


@pytest.fixture
def without(monkeypatch):
    def switch_off(table, name):
        for place, replacement in table[name].items():
            monkeypatch.setattr(place, replacement)

    return switch_off


@pytest.fixture
def seen(monkeypatch):
    """What the model is given: distinct prompts of each batch, whether prompts lie in one row, blocks made, rows read."""
    found = {"prompts": [], "packed": [], "blocks": 0, "rows": []}
    begin, read, make = Growing.__init__, Growing._read, Roomy.__init__

    def begun(self, model, prompts, **more):
        found["prompts"].append(list(prompts))
        found["packed"].append(more["layout"] == "packed")
        begin(self, model, prompts, **more)

    def counted(self, *given, **more):
        found["blocks"] += 1
        make(self, *given, **more)

    monkeypatch.setattr(Growing, "__init__", begun)
    monkeypatch.setattr(Roomy, "__init__", counted)
    monkeypatch.setattr(Growing, "_read", lambda self, tokens: found["rows"].append(len(tokens)) or read(self, tokens))
    return found


PROMPTS = [Prompt.of(text) for text in ("a b c d", "a", "a b c", "a b") for _ in range(2)]


def answers(model):
    policy = PolicyRef("b" * 64, "full", model, "b" * 64, model, "tok")
    family = Family(policy)
    with family.using(policy) as loaded:
        found = sample(loaded, family.tokenizer, PROMPTS, Sampling(100, 3.0, 1.0, 4, 0), layout=family.layout)
    return [each.encoded for each in found]


@pytest.mark.parametrize("name", tricks.SAMPLING)
def test_sampling_without_one_thing_gives_the_same_answers(model, without, seen, name):
    expected = answers(model)
    usual = {key: value if key == "blocks" else list(value) for key, value in seen.items()}
    for key in seen:
        seen[key] = 0 if key == "blocks" else []
    without(tricks.SAMPLING, name)
    assert answers(model) == expected
    assert [len(set(each)) for each in usual["prompts"]] == [2, 2]
    assert min(usual["rows"]) < 4  # some have ended
    lengths = [[len(p) for p in each] for each in seen["prompts"]]
    match name:
        case "prompts in one row, padded":
            assert (usual["packed"], seen["packed"]) == ([True] * 2, [False] * 2)
        case "answers to a prompt in one batch, which reads it once":
            assert [len(set(each)) for each in seen["prompts"]] == [4, 4]
        case "prompts of similar length in a batch":
            assert max(lengths[0]) - min(lengths[0]) == 6  # bytes of "a b c d" and of "a"
        case "keys and values in a block with room, copied":
            assert usual["blocks"] > seen["blocks"] == 0
        case "rows leaving when their answer has ended":
            assert set(seen["rows"]) == {4}
        case _:
            assert seen == usual


@pytest.mark.parametrize("name", ["anchors scored before training", "activations kept"])
def test_training_without_what_is_kept_gives_the_same_weights(world, without, monkeypatch, name):
    once = TRAINING.model_copy(update={"epochs": 1})
    expected, told, passes = weights(world.train(training=once)), [], []
    without(tricks.SWITCHED_OFF, name)
    forward = tricks.completion_logps
    monkeypatch.setattr(tricks, "completion_logps", lambda *given: passes.append(1) or forward(*given))
    found = weights(world.train(lambda p: told.append(p) and False, training=once))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    facts = next(p.facts for p in told if p.step == "fit")
    assert ("recompute" in facts, len(passes)) == ((True, 0) if name == "activations kept" else (False, 6))


def test_what_is_switched_off_exists():
    for table in (tricks.SWITCHED_OFF, tricks.SAMPLING):
        for place in (place for replaced in table.values() for place in replaced):
            module, _, attribute = place.rpartition(".")
            assert hasattr(import_module(module), attribute)


def test_prompts_are_answered_in_the_order_the_batches_say():
    how = Sampling(1, 1.0, 1.0, 2, 0)
    prompts = [(1, 2), (3,), (1, 2), (3,), (4, 5, 6)]
    assert list(tricks._as_given(prompts, how)) == [[0, 1], [2, 3], [4]]
    assert list(tricks._one_answer_each(prompts, how)) == [[1, 0], [4], [3, 2]]


def test_a_run_tells_how_long_it_took(world, model):
    work = {"policy": world.base._asdict(), "numerics": {}, "version": {"path": world.version.path}, "answer_tokens": 3}
    assert tricks.sampled(work).step_s > 0
