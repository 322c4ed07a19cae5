"""A worker that writes with vLLM on a GPU: the same policy and the same prompts, many more answers a second.

vLLM is no dependency; it is imported when a worker that shall use it starts. Its precision differs from the trainer's by
more than rounding in places; `apart` in a round's progress says by how much.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from preference_data.records import Prompt
from workbench.errors import ModelError
from workbench.models.load import load_tokenizer, save_adapter, trainable
from workbench.models.sampling import Answer, Sampling, answer_seeds
from workbench.models.tokens import Encoded, prompt_ids
from workbench.models.weights import set_weights
from workbench.tasks import TrainJob
from workbench.training.online.asking import prompts_of

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Of adapters that vLLM makes room for."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker is a process of its own, and dies with its engine
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


class VllmWriter:
    """A policy that is given weights and writes, as `Writer` is.

    Args:
        job: of the round, an adapter's; says which model, adapter and precision.

    Raises:
        ModelError: vLLM is not installed here.
    """

    def __init__(self, job: TrainJob) -> None:
        self._vllm = _vllm()
        self._tokenizer = load_tokenizer(job.parent.base_path)
        # Holds the adapter's names and settings; it is never computed with.
        self._model: Any = trainable(job.parent, job.training)
        self._written = 0
        self._llm = self._vllm.LLM(
            model=job.parent.base_path,
            dtype=job.numerics.dtype,
            load_format="safetensors",
            trust_remote_code=False,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=_room_for(job.training.rank),
            max_model_len=self._longest(job),
            logprobs_mode="processed_logprobs",  # as the token was drawn, not as the model said
            seed=job.training.seed,
        )

    def _longest(self, job: TrainJob) -> int:
        """Tokens of the longest prompt with its answer: vLLM would make room for the longest the model can read."""
        return prompts_of(job, self._tokenizer).longest + job.online.max_new_tokens

    def write(self, weights: Mapping[str, Any], prompts: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        """Answers of the policy with these weights, given as arrays by their names."""
        set_weights(self._model, {name: torch.tensor(array) for name, array in weights.items()})
        self._written += 1
        with tempfile.TemporaryDirectory(prefix="adapter-") as folder:
            save_adapter(self._model, Path(folder))
            # Under a new number: vLLM keeps the weights, and what it computed with them, of numbers it has seen.
            name = f"adapter-{self._written}"
            adapter = import_module("vllm.lora.request").LoRARequest(name, self._written, folder)
            return self._answers(adapter, prompts, sampling)

    def _answers(self, adapter: Any, prompts: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        ids = [tuple(prompt_ids(self._tokenizer, prompt)) for prompt in prompts]
        how = [
            self._vllm.SamplingParams(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
                logprobs=0,  # of the token drawn, and of no other
            )
            for seed in answer_seeds(ids, sampling.seed)
        ]
        asked = [self._vllm.TokensPrompt(prompt_token_ids=list(each)) for each in ids]
        found = self._llm.generate(asked, how, lora_request=adapter, use_tqdm=False)
        return [self._answer(i, ids[i], each.outputs[0], sampling) for i, each in enumerate(found)]

    def _answer(self, index: int, prompt: tuple[int, ...], output: Any, sampling: Sampling) -> Answer:
        return Answer(
            index=index,
            text=str(self._tokenizer.decode(output.token_ids, skip_special_tokens=True)).strip(),
            encoded=Encoded(prompt, tuple(output.token_ids)),
            finished=output.finish_reason == "stop",
            logp=0.0 if sampling.temperature == 0 else float(output.cumulative_logprob),
        )


def _vllm() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return import_module("vllm")
    except ImportError as error:
        raise ModelError(
            f"online.engine = 'vllm', but this worker cannot import it ({error}); pip install vllm where workers run, or "
            "leave engine out"
        ) from error


def _room_for(rank: int) -> int:
    """The least that vLLM offers.

    >>> _room_for(12)
    16
    """
    return next(each for each in RANKS if each >= rank)
