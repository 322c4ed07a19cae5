"""What watches a round on fresh answers: a reward it is not trained on, or an AI judge that knows the policy it started from."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from preference_data.records import Comparison, Completion, Imported, Judgement, Pairwise, Prompt, Verdict
from workbench.ai_judge import judge_behind
from workbench.config import AI
from workbench.models.sampling import Sampling
from workbench.models.weights import speaking_as, trained_weights
from workbench.rewards import Said, reward_named
from workbench.tasks import TrainJob
from workbench.training.online.asking import models_of
from workbench.training.online.guard import Guard
from workbench.training.online.trainer import AT_ONCE, OnlineTrainer
from workbench.training.online.writers import own_answers

SHARES = {Verdict.FIRST: 1.0, Verdict.SECOND: 0.0}
EVEN = 0.5


def guard_of(job: TrainJob, trainer: OnlineTrainer) -> Guard | None:
    """What watches a job; the trainer's model has the weights that training starts from.

    Raises:
        ConfigError: a reward of that name does not exist.
    """
    settings = job.online.guard
    if settings is None:
        return None
    if settings.by.startswith(AI):
        judge = judge_behind(settings.by, guideline=settings.guideline, timeout_s=settings.timeout_s)
        name = f"the share of answers that {settings.by} prefers to the start's"
        says = AgainstStart(judge, answers_of_start(job, trainer))
    else:
        name, says = settings.by, _mean(reward_named(settings, models_of(job)))
    return Guard(name, says, window=job.online.guard_window, steps=job.online.steps)


def _mean(reward: Callable[[Sequence[Said]], Sequence[float]]) -> Callable[[Sequence[Said]], float]:
    return lambda said: fmean(reward(said))


def answers_of_start(job: TrainJob, trainer: OnlineTrainer) -> Callable[[Sequence[Prompt]], list[str]]:
    """One answer to each prompt, of the policy as it is now, whatever becomes of it."""
    model: Any = trainer.model
    start, write, o = trained_weights(model), own_answers(trainer, job.numerics), job.online
    how = Sampling(o.max_new_tokens, o.temperature, 1.0, AT_ONCE, job.training.seed)

    def answers(prompts: Sequence[Prompt]) -> list[str]:
        with speaking_as(model, start):
            return [each.text for each in write(lambda: start, prompts, how)()]

    return answers


class AgainstStart:
    """How often a judge prefers a policy's answers to those of the policy its round started from.

    Args:
        judge: of two answers, asked with either first.
        start: answers prompts as the round's start; asked once for each.
    """

    def __init__(
        self,
        judge: Callable[[Sequence[Comparison]], Sequence[Judgement]],
        start: Callable[[Sequence[Prompt]], Sequence[str]],
    ) -> None:
        self._judge, self._start = judge, start
        self._known: dict[str, str] = {}

    def __call__(self, said: Sequence[Said]) -> float:
        """Share of prompts whose first answer is preferred; a tie counts half."""
        first: dict[str, Said] = {}
        for one in said:
            first.setdefault(one.prompt.key, one)
        unknown = [one.prompt for key, one in first.items() if key not in self._known]
        if unknown:
            texts = self._start(unknown)
            self._known |= {prompt.key: text for prompt, text in zip(unknown, texts, strict=True)}
        shares = {key: _untold(one.text, self._known[key]) for key, one in first.items()}
        left = [key for key, share in shares.items() if share is None]
        judged = self._judge([self._compared(first[key]) for key in left]) if left else []
        told = [_share(one) for one in judged]
        return fmean([*(share for share in shares.values() if share is not None), *told])

    def _compared(self, said: Said) -> Comparison:
        texts = (said.text, self._known[said.prompt.key])
        return Comparison(said.prompt, tuple(Completion(text, Imported("guard")) for text in texts), "guard")


def _untold(ours: str, starts: str) -> float | None:
    """What needs no judge: two equal answers, and one that says nothing."""
    if ours.strip() == starts.strip():
        return EVEN
    if ours.strip() and starts.strip():
        return None
    return float(bool(ours.strip()))


def _share(judgement: Judgement) -> float:
    return SHARES.get(judgement.opinion.verdict, EVEN) if isinstance(judgement.opinion, Pairwise) else EVEN
