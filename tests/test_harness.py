"""Tasks of lm-eval as suites, on a task of our own and a tiny model."""

import importlib.util
import json
from types import SimpleNamespace

import pytest

from tests.tiny_model import build_tiny_model
from workbench.config import EvaluationSettings, NumericsSettings
from workbench.errors import ConfigError
from workbench.evaluation.context import Context
from workbench.evaluation.evaluate import suite_named
from workbench.models.forward import completion_logits
from workbench.models.load import Family
from workbench.models.tokens import Encoded, encode_text
from workbench.tasks import PolicyRef

WITH_HARNESS = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
TASK = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture
def context(tmp_path, monkeypatch):
    rows = [{"question": f"Colour of {thing}:", "options": ["red", "green", "blue"], "answer": i % 3}
            for i, thing in enumerate(["grass", "sky", "blood", "leaf", "sea", "rose"])]  # fmt: skip
    (tmp_path / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "colours.yaml").write_text(TASK.format(file=tmp_path / "colours.jsonl"))
    monkeypatch.setenv("WORKBENCH_LM_EVAL_TASKS", str(tmp_path / "tasks"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = str(build_tiny_model(tmp_path / "model"))
    policy = PolicyRef("b" * 64, "full", path, "b" * 64, path, "tok")
    return Context(Family(policy, NumericsSettings()), policy, EvaluationSettings(), lambda done, total: None), rows


@WITH_HARNESS
def test_a_task_becomes_items_that_agree_with_the_models_own_logits(context):
    context, rows = context
    items = list(suite_named("lm-eval/colours")(context))
    assert {i.suite for i in items} == {"lm-eval/colours"}
    assert [i.metric for i in items] == ["correct"] * 6
    for item, row in zip(sorted(items, key=lambda i: i.item), rows, strict=True):
        with context.family.using(context.policy) as model:
            scores = []
            for option in row["options"]:
                rows_ = context.family.collate([encode_text(context.family.tokenizer, row["question"], " " + option)])
                found = completion_logits(model, rows_)
                scores.append(float(found.logits.log_softmax(-1).gather(1, found.targets[:, None]).sum()))
        assert item.value == float(scores.index(max(scores)) == row["answer"])


@WITH_HARNESS
def test_whole_texts_are_scored_in_windows_and_answers_end_where_told(context):
    from workbench.evaluation.harness import _Policy, _until

    context, _ = context
    with context.family.using(context.policy) as model:
        policy = _Policy(context, model)
        text = "the sky over the sea"
        (whole,) = policy.loglikelihood_rolling([SimpleNamespace(args=(text,))])
        ((again, _),) = policy.loglikelihood([SimpleNamespace(args=("", text))])
        assert whole == pytest.approx(again, abs=1e-4)
        model.config.max_position_embeddings = 6  # windows of five tokens, each after the token before it
        ids = context.family.tokenizer(text)["input_ids"]
        before = [context.family.tokenizer.eos_token_id, *ids[4:-1:5]]
        windows = [Encoded((b,), tuple(ids[k * 5 : k * 5 + 5])) for k, b in enumerate(before)]
        (cut,) = policy.loglikelihood_rolling([SimpleNamespace(args=(text,))])
        assert cut == pytest.approx(sum(logp for logp, _ in policy._scored(windows)), abs=1e-4)
        assert cut != pytest.approx(whole, abs=1e-3)
        answers = policy.generate_until([SimpleNamespace(args=("hello", {"max_gen_toks": 4, "until": []}))])
        assert len(answers) == 1
    assert (_until("one\ntwo", ["\n"]), _until("one", "n"), _until("one", [""])) == ("one", "o", "one")


@WITH_HARNESS
def test_an_unknown_task_is_told(context):
    with pytest.raises(ConfigError, match="knows no task 'nothing'"):
        list(suite_named("lm-eval/nothing")(context[0]))


def test_without_the_package_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("workbench.evaluation.evaluate.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install 'lm-eval"):
        suite_named("lm-eval/arc_easy")
