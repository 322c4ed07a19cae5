"""Tasks of the Language Model Evaluation Harness as suites: `lm-eval/<task>`. Needs the package lm-eval.

Answers are scored on the same rows as everything else; generation goes through the lineage's chat template, greedily.
Tasks of one's own are YAML files in the folder that `WORKBENCH_LM_EVAL_TASKS` names.
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUntypedBaseClass=false
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from preference_data.records import Prompt
from workbench.errors import ConfigError
from workbench.evaluation.context import Context
from workbench.models.forward import completion_states, logps_from
from workbench.models.sampling import Sampling, sample
from workbench.models.tokens import Encoded, beginning, encode_text
from workbench.tasks import Item

TASKS = "WORKBENCH_LM_EVAL_TASKS"
RIGHT = ("acc", "exact_match")
"""Metrics of the harness that say whether an item was right; kept as `correct`, as other capability suites do."""
MOST_NEW_TOKENS = 256


def harness(task: str) -> Callable[[Context], Iterable[Item]]:
    """The suite of one task or group of tasks."""

    def suite(context: Context) -> Iterator[Item]:
        manager = TaskManager(include_path=os.environ.get(TASKS))
        if task not in manager.all_tasks:
            raise ConfigError(
                f"evaluation.suites: lm-eval knows no task '{task}'; `lm-eval ls tasks` lists them, and {TASKS} names a "
                "folder of your own"
            )
        with context.family.using(context.policy) as model:
            found: Any = simple_evaluate(
                _Policy(context, model), tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True,
                verbosity="ERROR",
            )  # fmt: skip
        items = [item for name, rows in found["samples"].items() for item in _items(task, name, rows)]
        if not items:
            raise ConfigError(
                f"evaluation.suites: task '{task}' of lm-eval gives no number per item; choose another task"
            )
        yield from items

    return suite


def _items(task: str, name: str, rows: Sequence[dict[str, Any]]) -> Iterator[Item]:
    for row in rows:
        numbers = {metric: row[metric] for metric in row["metrics"] if isinstance(row[metric], int | float)}
        right = next((metric for metric in RIGHT if metric in numbers), None)
        for metric, value in numbers.items():
            key = f"{name}/{row['doc_id']}" + (f"/{row['filter']}" if row["filter"] != "none" else "")
            detail = {"target": str(row["target"]), "answer": str(row["filtered_resps"])[:1000]}
            yield Item(f"lm-eval/{task}", key, "correct" if metric == right else metric, float(value), key,
                       {"domain": name}, detail)  # fmt: skip


class _Policy(LM):
    """A policy as the harness asks it."""

    def __init__(self, context: Context, model: Any) -> None:
        super().__init__()
        self._context, self._model = context, model

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is what greedy decoding would say."""
        tokenizer: Any = self._context.family.tokenizer
        pairs: list[Any] = [each.args for each in requests]
        return self._scored([encode_text(tokenizer, c or tokenizer.eos_token, text) for c, text in pairs])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of whole texts, in windows of the length the model was trained at."""
        tokenizer: Any = self._context.family.tokenizer
        window = self._model.config.get_text_config(decoder=True).max_position_embeddings - 1
        parts: list[tuple[int, Encoded]] = []
        for number, each in enumerate(requests):
            (text,) = each.args
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            before = next(iter(beginning(tokenizer)), tokenizer.eos_token_id)
            for start in range(0, len(ids), window):
                parts.append((number, Encoded((before,), tuple(ids[start : start + window]))))
                before = ids[min(start + window, len(ids)) - 1]
        totals = [0.0] * len(requests)
        for (number, _), (logp, _) in zip(parts, self._scored([e for _, e in parts]), strict=True):
            totals[number] += logp
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The likeliest answer to each text, up to the first of its stop strings."""
        asked: list[Any] = [each.args for each in requests]
        longest = max((int(given.get("max_gen_toks", MOST_NEW_TOKENS)) for _, given in asked), default=1)
        sampling = Sampling(longest, 0.0, 1.0, self._context.settings.batch_size, self._context.settings.seed)
        answers = sample(
            self._model,
            self._context.family.tokenizer,
            [Prompt.of(text) for text, _ in asked],
            sampling,
            layout=self._context.family.layout,
            progress=lambda n: self._context.tell(n, len(asked)),
        )
        return [_until(a.text, given.get("until") or ()) for a, (_, given) in zip(answers, asked, strict=True)]

    def _scored(self, examples: Sequence[Encoded]) -> list[tuple[float, bool]]:
        found: dict[int, tuple[float, bool]] = {}
        for batch in self._context.family.batches(examples, size=self._context.settings.batch_size):
            rows = self._context.family.collate([examples[i] for i in batch]).on(self._model.device)
            states = completion_states(self._model, rows)
            likeliest = torch.cat([states.logits(chunk).argmax(-1) for chunk in states.chunks()])
            missed = torch.zeros(len(batch)).index_add(0, rows.example.cpu(), (likeliest != rows.targets).float().cpu())
            logps = logps_from(states, rows).tolist()
            found |= {i: (logps[k], not bool(missed[k])) for k, i in enumerate(batch)}
            self._context.tell(len(found), len(examples))
        return [found[i] for i in range(len(examples))]


def _until(text: str, stops: str | Sequence[str]) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        if stop:
            text = text.split(stop)[0]
    return text
