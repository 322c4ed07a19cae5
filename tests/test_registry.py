"""Policies: what may become one, who descends from whom, and which is champion."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.small_round import write_adapter, write_base
from workbench.errors import ModelError, PolicyError
from workbench.objects import Objects
from workbench.policies import checkpoints
from workbench.policies.champion import Move, predecessors
from workbench.policies.lineage import ancestry, at_depth, depth, superseded
from workbench.policies.registry import Registry
from workbench.schema import open_ledger
from workbench.tasks import PolicyRef


@pytest.fixture
def objects(tmp_path):
    return Objects(tmp_path)


@pytest.fixture
def registry(tmp_path, objects):
    return Registry(open_ledger(f"sqlite:///{tmp_path}/ledger.db"), objects)


@pytest.fixture
def base(registry, tmp_path):
    return registry.add_base(write_base(tmp_path / "base"), "tiny")


def child_of(registry, objects, parent, fill, **kwargs):
    folder = objects.stage()
    write_adapter(folder, fill=fill, base_model_name_or_path="")
    values = {"round_digest": f"r{fill}", "version": "v", "config": "c", "name": f"child-{fill}"} | kwargs
    return registry.commit_child(objects.publish(folder), parent=parent.digest, **values)


@pytest.fixture
def line(registry, objects, base):
    """A base and two rounds, promoted one after the other."""
    one = child_of(registry, objects, base, 1.0)
    two = child_of(registry, objects, one, 2.0)
    registry.promote(one.digest, reason="gain", by="ada", expected=base.digest, round_digest="r1")
    registry.promote(two.digest, reason="gain", by="ada", expected=one.digest, round_digest="r2")
    return base, one, two


# -- bases --------------------------------------------------------------------------------------------------------


def test_a_base_stays_where_it_is_and_becomes_champion(registry, base, tmp_path):
    assert (base.kind, base.parent, base.base, base.origin) == ("full", None, base.digest, "base")
    assert base.path == str(tmp_path / "base")
    assert base.facts["parameters"] == 8 * 4 + 10 * 4
    assert registry.resolve("champion") == registry.resolve("base") == base
    expected = PolicyRef(base.digest, "full", base.path, base.digest, base.path, base.tokenizer)
    assert registry.ref(base) == expected
    registry.verify(base.digest)


def test_what_gpt2_calls_otherwise_is_known_by_its_usual_name(tmp_path):
    folder = write_base(tmp_path / "gpt2")
    own = {"model_type": "gpt2", "vocab_size": 10, "n_embd": 4, "n_layer": 1, "n_positions": 64}
    (folder / "config.json").write_text(json.dumps(own))
    usual = {"hidden_size": 4, "num_hidden_layers": 1, "max_position_embeddings": 64}
    assert checkpoints.read_base(folder).facts == {
        "model_type": "gpt2",
        "vocab_size": 10,
        **usual,
        "parameters": 8 * 4 + 10 * 4,
    }


def test_the_digest_is_of_weights_and_configuration_and_the_tokenizers_is_apart(registry, base, tmp_path):
    other = write_base(tmp_path / "other")
    (other / "README.md").write_text("not part of it")
    again = registry.add_base(other, "another name")
    assert (again.digest, again.tokenizer, again.name) == (base.digest, base.tokenizer, "tiny")
    assert again.path == str(other), "a base that was moved is found again"
    (other / "chat_template.jinja").write_text("{{ other }}")
    with pytest.raises(PolicyError, match="tokenizer or chat template differ"):
        registry.add_base(other, "changed")


def test_a_second_base_leaves_the_champion_alone(registry, base, tmp_path):
    second = registry.add_base(write_base(tmp_path / "wide", width=8), "wide")
    assert second.digest != base.digest
    assert registry.resolve("champion") == base
    assert len(registry.history()) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer; expected tokenizer.json"),
        (lambda f: (f / "chat_template.jinja").unlink(), "no chat template.*pass a Jinja file.*chat_template.jinja"),
        (lambda f: (f / "config.json").unlink(), "config.json: missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: holds a list"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights; expected"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin: pickled weights"),
        (lambda f: (f / "model.safetensors").rename(f / "model.pt"), "model.pt: pickled weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), "model.safetensors: damaged"),
        (lambda f: truncate(f / "model.safetensors"), "model.safetensors: damaged"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part-2.safetensors"}}'),
            "part-2.safetensors: missing, though model.safetensors.index.json names it",
        ),
    ],
)
def test_an_unfit_base_is_refused_by_file(registry, tmp_path, spoil, message):
    folder = write_base(tmp_path / "base")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        registry.add_base(folder, "tiny")
    assert registry.policies() == ()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_missing_folder_is_refused(registry, tmp_path):
    with pytest.raises(ModelError, match="nowhere: no such folder"):
        registry.add_base(tmp_path / "nowhere", "tiny")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_base_that_changed_is_refused_by_file(registry, base, name, change):
    path = Path(base.path) / name
    path.unlink() if change == "missing" else path.write_bytes(b"x")
    with pytest.raises(PolicyError, match=rf"{name}: {change} since base tiny"):
        registry.verify(base.digest)


def test_a_new_tokenizer_file_is_a_changed_base(registry, base):
    (Path(base.path) / "tokenizer_config.json").write_text("{}")
    with pytest.raises(PolicyError, match=r"tokenizer_config.json: new since base"):
        registry.verify(base.digest)


# -- children -----------------------------------------------------------------------------------------------------


def test_a_child_inherits_base_and_tokenizer(registry, objects, base):
    child = child_of(registry, objects, base, 1.0)
    assert (child.kind, child.parent, child.base, child.tokenizer) == (
        "adapter", base.digest, base.digest, base.tokenizer,
    )  # fmt: skip
    assert (child.round, child.version, child.config, child.origin) == ("r1.0", "v", "c", "round")
    assert registry.get(child.digest) == child
    assert registry.ref(child) == PolicyRef(
        child.digest, "adapter", str(objects.path(child.digest)), base.digest, base.path, base.tokenizer
    )
    assert child_of(registry, objects, base, 1.0) == child, "committing again gives the record kept"


def test_the_same_weights_have_one_parent(registry, objects, base):
    child = child_of(registry, objects, base, 1.0)
    other = child_of(registry, objects, base, 2.0)
    with pytest.raises(PolicyError, match="the same weights are registered as child-1.0"):
        child_of(registry, objects, other, 1.0)
    assert registry.get(child.digest).parent == base.digest


def test_a_workspace_can_be_moved(registry, objects, base, tmp_path):
    child = child_of(registry, objects, base, 1.0)
    moved = Registry(open_ledger(f"sqlite:///{tmp_path}/ledger.db"), Objects(tmp_path / "elsewhere"))
    assert moved.get(child.digest).path == str(tmp_path / "elsewhere" / "objects" / child.digest)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_adapter_is_refused_by_file(registry, objects, base, name, damage):
    child = child_of(registry, objects, base, 1.0)
    path = Path(child.path) / name
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1] + b"x")
    for use in (registry.verify, lambda d: registry.promote(d, reason="", by="ada", expected=base.digest)):
        with pytest.raises(PolicyError, match=rf"policy child-1.0 .*{name}: (damaged|missing)"):
            use(child.digest)
    assert registry.resolve("champion") == base


def test_full_weights_may_be_a_child_but_carry_no_adapter(registry, objects, base, tmp_path):
    full = registry.adopt(write_base(tmp_path / "full", fill=1.0), parent="base", name="full")
    assert (full.kind, full.base, full.parent) == ("full", base.digest, base.digest)
    assert sorted(p.name for p in Path(full.path).iterdir()) == ["MANIFEST.json", "config.json", "model.safetensors"]
    with pytest.raises(PolicyError, match="an adapter over full .* full weights of its own"):
        child_of(registry, objects, full, 1.0)


# -- adopting -----------------------------------------------------------------------------------------------------


def test_an_adopted_adapter_is_the_same_wherever_it_was_trained(registry, base, tmp_path):
    here = registry.adopt(write_adapter(tmp_path / "a"), parent="champion", version="v", name="theirs")
    config = json.loads((Path(here.path) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == ""
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert (here.origin, here.parent, here.version, here.round) == ("adopted", base.digest, "v", None)
    there = write_adapter(tmp_path / "b", base_model_name_or_path="/scratch/other", target_modules=["q_proj", "v_proj"])
    (there / "optimizer.pt").write_bytes(b"pickle, not copied")
    assert registry.adopt(there, parent=base.digest, name="again").digest == here.digest
    assert not (Path(here.path) / "optimizer.pt").exists()


def pickled(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("kwargs", "spoil", "message"),
    [
        ({}, lambda f: truncate(f / "adapter_model.safetensors"), "adapter_model.safetensors: damaged"),
        ({}, lambda f: (f / "adapter_model.safetensors").unlink(), "no weights; expected"),
        ({}, pickled, "adapter_model.bin: pickled weights"),
        ({}, lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json: not JSON"),
        ({}, lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json: missing"),
        ({"peft_type": "IA3"}, None, "peft_type is 'IA3', expected 'LORA'"),
        ({"width": 8}, None, r"lora_A.weight has shape \(2, 8\), which does not fit .*q_proj.weight \(8, 4\)"),
        ({"module": "model.layers.7.mlp"}, None, "adapts model.layers.7.mlp.weight, which the base does not have"),
    ],
)
def test_what_does_not_fit_the_base_is_not_adopted(registry, objects, base, tmp_path, kwargs, spoil, message):
    folder = write_adapter(tmp_path / "theirs", **kwargs)
    if spoil:
        spoil(folder)
    with pytest.raises(PolicyError, match=message):
        registry.adopt(folder, parent="base", name="theirs")
    assert registry.policies() == (base,)
    assert list((objects.root / "objects").iterdir()) == []
    assert list((objects.root / "staging").iterdir()) == []


def test_full_weights_of_another_shape_are_not_adopted(registry, base, tmp_path):
    wide = write_base(tmp_path / "wide", width=8)
    with pytest.raises(PolicyError, match=r"tensor model.* has shape .* expected .* as in the base"):
        registry.adopt(wide, parent="base", name="wide")
    with pytest.raises(PolicyError, match="nowhere: no such folder"):
        registry.adopt(tmp_path / "nowhere", parent="base", name="x")
    assert registry.policies() == (base,)


@pytest.mark.parametrize(
    ("module", "tensors", "fits"),
    [
        # the embedding is (10, 4): A reads tokens, B writes features
        ("model.embed_tokens", {"lora_embedding_A": (2, 10), "lora_embedding_B": (4, 2)}, True),
        ("model.embed_tokens", {"lora_embedding_A": (2, 4), "lora_embedding_B": (10, 2)}, False),
        # a model whose files leave its own prefix out
        ("transformer.model.embed_tokens", {"lora_embedding_A": (2, 10), "lora_embedding_B": (4, 2)}, True),
        ("transformer.model.embed_tokens", {"lora_embedding_A": (2, 4), "lora_embedding_B": (10, 2)}, False),
        # the head is tied to the embedding and not saved
        ("lm_head", {"lora_A.weight": (2, 4), "lora_B.weight": (10, 2)}, True),
        ("lm_head", {"lora_A.weight": (2, 4), "lora_B.weight": (8, 2)}, False),
        # a module saved whole
        ("model.embed_tokens", {"weight": (10, 4)}, True),
        ("model.embed_tokens", {"base_layer.weight": (10, 4)}, True),
        ("model.embed_tokens", {"modules_to_save.weight": (11, 4)}, False),
    ],
)
def test_every_kind_of_adapter_tensor_is_held_against_the_base(tmp_path, module, tensors, fits):
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    named = {f"base_model.model.{module}.{part}": np.zeros(shape, np.float32) for part, shape in tensors.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    if fits:
        checkpoints.check_fits(adapter, base)
    else:
        with pytest.raises(PolicyError, match="does not fit"):
            checkpoints.check_fits(adapter, base)


def test_a_transposed_layer_is_read_the_other_way_round(tmp_path):
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter", fan_in_fan_out=True)
    with pytest.raises(PolicyError, match="does not fit"):
        checkpoints.check_fits(adapter, base)
    name = "base_model.model.model.layers.0.self_attn.q_proj"  # (8, 4): 8 in, 4 out
    tensors = {f"{name}.lora_A.weight": np.zeros((2, 8)), f"{name}.lora_B.weight": np.zeros((4, 2))}
    save_file(tensors, adapter / "adapter_model.safetensors")
    checkpoints.check_fits(adapter, base)


# -- names and lineage --------------------------------------------------------------------------------------------


def test_policies_answer_to_many_names(registry, line):
    base, one, two = line
    for name in ("champion", "child-2.0", two.digest, two.digest[:8], "2", "round-2"):
        assert registry.resolve(name) == two
    for name in ("base", "tiny", "0", "round-0"):
        assert registry.resolve(name) == base
    assert registry.resolve("1") == one
    assert registry.lineage(two.digest) == line
    assert registry.policies() == line


def test_a_number_is_of_the_champions_lineage_before_any_other(registry, objects, line):
    base, one, _ = line
    rejected = child_of(registry, objects, base, 3.0)
    assert registry.resolve("1") == one
    registry.rollback(reason="test", by="ada", to="base")
    with pytest.raises(PolicyError, match="several answer to it") as error:
        registry.resolve("1")
    assert one.digest[:12] in str(error.value)
    assert rejected.digest[:12] in str(error.value)


@pytest.mark.parametrize("name", ["", "3", "round-3", "zzzz", "abc", "parent"])
def test_an_unknown_name_lists_what_there_is(registry, line, name):
    with pytest.raises(PolicyError, match=r"unknown; there are: tiny \(.*child-1.0 \(.*child-2.0 \(") as error:
        registry.resolve(name)
    assert line[2].digest[:12] in str(error.value)


def test_an_empty_registry_says_what_to_do(registry):
    with pytest.raises(PolicyError, match="none yet, add a base first"):
        registry.resolve("champion")
    with pytest.raises(PolicyError, match="abc: unknown"):
        registry.get("abc")


def test_a_version_is_replaced_by_the_next_or_by_name_and_comes_back_when_it_is_trained_on():
    assert superseded([("a", False), ("b", True)]) == {"a"}
    assert superseded([("a", False), ("b", False), ("c", "a")]) == {"a"}
    assert superseded([("a", False), ("b", True), ("a", False)]) == frozenset()
    assert superseded([("a", False), ("a", True)]) == frozenset()  # it does not replace itself
    assert superseded([("a", True)]) == frozenset()


def test_ancestry_by_hand():
    parents = {"a": None, "b": "a", "c": "b", "d": "b", "x": "gone", "y": "z", "z": "y"}
    assert ancestry("c", parents) == ("a", "b", "c")
    assert ancestry("a", parents) == ("a",)
    assert depth("d", parents) == 2
    assert at_depth(2, {d: p for d, p in parents.items() if d in "abcd"}) == ("c", "d")
    with pytest.raises(PolicyError, match="gone: unknown ancestor of x"):
        ancestry("x", parents)
    with pytest.raises(PolicyError, match="descends from itself"):
        ancestry("y", parents)


@given(st.lists(st.integers(0, 30), max_size=30))
def test_every_ancestry_starts_at_a_base_and_goes_down_by_one(choices):
    parents = {"0": None} | {str(i): str(min(c, i - 1)) for i, c in enumerate(choices, start=1)}
    for digest in parents:
        found = ancestry(digest, parents)
        assert (found[0], found[-1]) == ("0", digest)
        assert all(parents[child] == parent for parent, child in pairwise(found))


# -- the champion -------------------------------------------------------------------------------------------------


def test_promotion_is_a_compare_and_set(registry, objects, base):
    one, two = child_of(registry, objects, base, 1.0), child_of(registry, objects, base, 2.0)
    registry.promote(one.digest, reason="gain", by="ada", expected=base.digest)
    with pytest.raises(PolicyError, match=f"champion is {one.digest[:12]}, expected {base.digest[:12]}"):
        registry.promote(two.digest, reason="gain", by="bob", expected=base.digest)
    assert registry.resolve("champion") == one
    assert [m.new for m in registry.history()] == [base.digest, one.digest]


def test_of_many_promotions_at_once_one_succeeds(registry, objects, base):
    children = [child_of(registry, objects, base, float(i)) for i in range(1, 7)]

    def promote(child):
        try:
            return registry.promote(child.digest, reason="gain", by=child.name, expected=base.digest)
        except PolicyError as error:
            assert "somebody moved it meanwhile" in str(error)  # noqa: PT017 - in a thread, only the winner returns
            return None

    with ThreadPoolExecutor(6) as pool:
        winners = [found for found in pool.map(promote, children) if found]
    assert [registry.resolve("champion")] == winners
    assert len(registry.history()) == 2


def test_a_round_promotes_once(registry, objects, base):
    one, two = child_of(registry, objects, base, 1.0), child_of(registry, objects, base, 2.0)
    for _ in range(2):
        registry.promote(one.digest, reason="gain", by="ada", expected=base.digest, round_digest="r1")
    assert len(registry.history()) == 2
    registry.rollback(reason="worse", by="ada", to="base")
    registry.promote(one.digest, reason="gain", by="ada", expected=base.digest, round_digest="r1")
    assert registry.resolve("champion") == base, "what a person rolled back is not promoted by running the round again"
    with pytest.raises(PolicyError, match="round r1 promoted .* a round promotes once"):
        registry.promote(two.digest, reason="gain", by="ada", expected=base.digest, round_digest="r1")


def test_promoting_the_champion_again_changes_nothing(registry, base):
    registry.promote(base.digest, reason="again", by="ada", expected=None)
    assert len(registry.history()) == 1


def test_the_unknown_is_not_promoted(registry, base):
    with pytest.raises(PolicyError, match="abc: unknown"):
        registry.promote("abc", reason="", by="ada", expected=base.digest)


def back(registry, reason):
    return registry.rollback(reason=reason, by="ada", to=predecessors(registry.history())[-1])


def test_rollback_goes_back_step_by_step_and_keeps_its_history(registry, line):
    base, one, two = line
    assert back(registry, "forgot safety") == one
    assert back(registry, "still") == base
    assert predecessors(registry.history()) == []
    registry.promote(two.digest, reason="after all", by="ada", expected=base.digest)
    assert back(registry, "no") == base
    moves = [(m.kind, m.old, m.new, m.reason) for m in registry.history()]
    assert moves == [
        ("promote", None, base.digest, "first base"),
        ("promote", base.digest, one.digest, "gain"),
        ("promote", one.digest, two.digest, "gain"),
        ("rollback", two.digest, one.digest, "forgot safety"),
        ("rollback", one.digest, base.digest, "still"),
        ("promote", base.digest, two.digest, "after all"),
        ("rollback", two.digest, base.digest, "no"),
    ]


def test_rollback_to_a_damaged_policy_is_refused(registry, line):
    _, one, two = line
    (Path(one.path) / "adapter_model.safetensors").unlink()
    with pytest.raises(PolicyError, match="adapter_model.safetensors: missing"):
        registry.rollback(reason="worse", by="ada", to="1")
    assert registry.resolve("champion") == two


@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=20))
def test_the_predecessors_are_those_of_an_undo_stack(actions):
    # a letter promotes a policy, None rolls back; the model is a plain stack without equal neighbours
    stack, history = ["a"], [Move("promote", None, "a", None, "", "", "")]
    for action in actions:
        assert predecessors(history) == stack[:-1]
        if action is None and len(stack) > 1:
            stack.pop()
            history.append(Move("rollback", None, stack[-1], None, "", "", ""))
        elif action is not None:
            stack += [action] * (action != stack[-1])
            history.append(Move("promote", None, action, None, "", "", ""))
