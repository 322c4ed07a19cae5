"""The trainer of fresh answers: before every step the policy answers some prompts, and learns from what rewards say.

The loop, optimizer, checkpoints and proofs are those of the pair trainer; what differs is where a batch comes from.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from preference_data.records import Prompt, digest
from workbench.config import OnlineSettings
from workbench.maths import importance
from workbench.models.forward import MOST_SHARED, Layout, Rows, collate, completion_logps, completion_states, logps_from
from workbench.models.kl_head import kl_to_anchors
from workbench.models.sampling import Answer, Sampling
from workbench.models.tokens import Encoded, pad_id
from workbench.models.weights import Weights, speaking_as
from workbench.rewards import Reward, Said
from workbench.training.carried import Carried, Steering
from workbench.training.online import OBJECTIVES, Drawn
from workbench.training.online.guard import Guard
from workbench.training.online.writers import Ahead
from workbench.training.penalties import states_under
from workbench.training.trainer import AnchoredDPOTrainer, tokenizer_of

AT_ONCE = 64
"""Answers written at once."""


class Asked(NamedTuple):
    """A prompt to answer.

    Attributes:
        anchors: the anchors' weights for it.
        old: an earlier round trained on it; it has no reward in this one.
    """

    prompt: Prompt
    slices: Mapping[str, str]
    anchors: tuple[float, ...]
    old: bool


class Fresh:
    """Where batches come from: what is asked, who rewards, what holds.

    Args:
        settings: of the objective.
        asked: prompts by their place in the dataset.
        reward: of answers to new prompts; None where the objective has none.
        anchors: weights of each anchor in place of the model's.
        base: those of the base, where all rounds together have a budget.
        order: prompts of all steps, by their place, one step after the other.
        per_step: how many each has.
        seed: another seed, other answers.
    """

    ahead: Ahead
    """Who writes the answers; set before the first step, as is the guard."""
    guard: Guard | None = None
    """Watches something that is not trained on."""

    def __init__(
        self,
        settings: OnlineSettings,
        asked: Sequence[Asked],
        *,
        reward: Reward | None,
        anchors: Sequence[Weights],
        base: Weights | None,
        order: Sequence[int],
        per_step: int,
        seed: int,
    ) -> None:
        self.settings, self.asked, self.anchors, self.base = settings, asked, anchors, base
        self._reward, self._seed = reward, seed
        self.order, self.per_step = order, per_step
        self.steering = Steering("online", settings.kl_target, settings.kl_base_budget)

    def carried(self) -> list[Carried]:
        """What changes from step to step beside the weights."""
        return [self.steering, self.ahead, *([self.guard] if self.guard else [])]

    def of_step(self, step: int) -> tuple[list[Prompt], Sampling] | None:
        """What a step asks, `samples` answers to each prompt, one after the other, and how; None after the last."""
        s, indices = self.settings, self.order[step * self.per_step : (step + 1) * self.per_step]
        if not indices:
            return None
        seed = int(digest(["online", self._seed, step])[:12], 16)
        prompts = [self.asked[i].prompt for i in indices for _ in range(s.samples)]
        return prompts, Sampling(s.max_new_tokens, s.temperature, 1.0, AT_ONCE, seed)

    def rewards(self, indices: Sequence[int], answers: Sequence[Answer]) -> tuple[Tensor, float | None]:
        """Rewards of answers, 0 for old prompts, shape (prompts, samples); and what the guard says of the new ones."""
        s = self.settings
        said = [
            Said(self.asked[i].prompt, a.text, self.asked[i].slices, a.finished)
            for i, a in zip([i for i in indices for _ in range(s.samples)], answers, strict=True)
        ]
        new = [k for k, i in enumerate(i for i in indices for _ in range(s.samples)) if not self.asked[i].old]
        values = torch.zeros(len(said))
        if self._reward is not None and new:
            values[new] = torch.tensor(self._reward([said[k] for k in new]), dtype=torch.float32)
        watched = self.guard.says([said[k] for k in new]) if self.guard and new else None
        return values.view(len(indices), s.samples), watched


class OnlineTrainer(AnchoredDPOTrainer):
    """Learns from the policy's own fresh answers.

    Attributes:
        fresh: where they come from; set before the first step.
    """

    fresh: Fresh

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Tensor:
        """Answer the batch's prompts, reward the answers, and learn from them a pass at a time."""
        fresh, indices = self.fresh, inputs["indices"]
        answers = fresh.ahead.answers(self.state.global_step)
        rewards, watched = fresh.rewards(indices, answers)
        log = self._metrics["train"]
        new = [k for k, i in enumerate(indices) if not fresh.asked[i].old]
        if new and fresh.settings.rewards:
            log["reward"].append(float(rewards[new].mean()))
        log["answer_tokens"].append(fmean(len(a.encoded.completion) for a in answers))
        log["truncated"].append(fmean(not a.finished for a in answers))
        log["distinct_answers"].append(_distinct(answers, fresh.settings.samples))
        if fresh.guard and watched is not None and new:
            log["guard"].append(watched)
            fresh.guard.saw(float(rewards[new].mean()), watched)
        return super().training_step(model, {"passes": self._passes(indices, answers, rewards)}, *rest, **more)

    def _passes(self, indices: Sequence[int], answers: Sequence[Answer], rewards: Tensor) -> list[dict[str, Any]]:
        """Prompts with all their answers, as many a pass as fit."""
        samples, found = self.fresh.settings.samples, list[list[int]]()
        sizes = [
            group_tokens([a.encoded for a in answers[k * samples : (k + 1) * samples]], self.pairs.layout)
            for k in range(len(indices))
        ]
        for k in sorted(range(len(indices)), key=lambda k: (-sizes[k], k)):
            padded = [sizes[j] for j in (*(found[-1] if found else ()), k)]
            whole = sum(padded) if self.pairs.layout == "packed" else len(padded) * max(padded)
            if found and whole <= self.pairs.tokens:
                found[-1].append(k)
            else:
                found.append([k])
        pad = pad_id(tokenizer_of(self))
        return [
            {
                "rows": collate(
                    [answers[k * samples + s].encoded for k in part for s in range(samples)],
                    pad_id=pad, layout=self.pairs.layout,
                ),
                "rewards": rewards[part],
                "drawn": torch.tensor([[answers[k * samples + s].logp for s in range(samples)] for k in part]),
                "asked": [self.fresh.asked[indices[k]] for k in part],
                "share": len(part) / len(indices),
            }
            for part in found
        ]  # fmt: skip

    def _prepare_inputs(self, inputs: Any) -> Any:
        # Rows lie where the model does by `Rows.on`; the rest are plain values.
        return inputs

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Tensor:  # noqa: FBT001
        settings, rows, asked = self.fresh.settings, inputs["rows"].on(model.device), inputs["asked"]
        one = _Pass(model, rows, self.fresh, [each.anchors for each in asked])
        weight = self.fresh.steering.weight
        betas = [weight * (settings.beta_old if each.old else settings.beta) for each in asked]
        rewarded = torch.tensor([not each.old for each in asked], device=model.device)
        drawn = Drawn(
            one.logps(), inputs["rewards"].to(model.device), torch.tensor(betas, device=model.device)[:, None],
            rewarded[:, None], one.reference, one.kl,
        )  # fmt: skip
        loss = OBJECTIVES[settings.objective](drawn, settings)
        self.fresh.steering.saw(float(loss.kl.sum()), loss.kl.numel())
        log = self._metrics["train"]
        away = drawn.logps.detach() - inputs["drawn"].to(drawn.logps)
        tokens = rows.example.bincount(minlength=rows.examples).view_as(away)
        if self.fresh.base is not None:
            from_base = one.kl_base(self.fresh.base)
            self.fresh.steering.saw(float(from_base.sum()), from_base.numel(), of=1)
            log["kl_base"] += from_base.tolist()
        log["kl"] += loss.kl.mean(1).tolist()
        log["kl_per_token"] += (loss.kl.sum(1) / tokens.sum(1)).tolist()
        if settings.temperature == 1:
            log["apart"] += (away.abs() / tokens).mean(1).tolist()
        weights = importance(away) if settings.weighted else torch.ones_like(away)
        return (weights * loss.per_sample).mean() * inputs["share"]


class _Pass:
    """One forward pass over answers; what anchors say of them is computed when asked for.

    Log-probs and KLs have the shape (prompts, samples).
    """

    def __init__(self, model: Any, rows: Rows, fresh: Fresh, weights: Sequence[tuple[float, ...]]) -> None:
        self._model, self._rows, self._anchors, self._samples = model, rows, fresh.anchors, fresh.settings.samples
        self._states = completion_states(model, rows)
        self._shares = torch.tensor(weights, device=model.device).repeat_interleave(self._samples, 0)
        self._used = [k for k in range(len(self._anchors)) if bool((self._shares[:, k] > 0).any())]

    def logps(self) -> Tensor:
        """Under the policy, with gradient."""
        return logps_from(self._states, self._rows).view(-1, self._samples)

    def reference(self) -> Tensor:
        """Under the geometric reference: the anchors' log-probs, weighted."""
        columns: list[Tensor] = []
        for k in self._used:
            with speaking_as(self._model, self._anchors[k]):
                columns.append(self._shares[:, k] * completion_logps(self._model, self._rows))
        return torch.stack(columns).sum(0).view(-1, self._samples)

    def kl(self) -> Tensor:
        """To the anchors, weighted, with gradient."""
        example = self._rows.example
        per_token = self._per_token([self._anchors[k] for k in self._used], self._shares[:, self._used][example])
        found = per_token.new_zeros(self._rows.examples).index_add(0, example, per_token)
        return found.view(-1, self._samples)

    @torch.no_grad()
    def kl_base(self, base: Weights) -> Tensor:
        """To the base at every token, without gradient, shape (tokens,)."""
        return self._per_token([base], self._shares.new_ones(len(self._rows.example), 1))

    def _per_token(self, others: Sequence[Weights], shares: Tensor) -> Tensor:
        states = [states_under(each, self._model, self._rows) for each in others]
        return kl_to_anchors(self._states, states, shares, direction="reverse")


def group_tokens(answers: Sequence[Encoded], layout: Layout) -> int:
    """Tokens of a prompt with its answers, as they are laid out: the prompt once for every row that has it."""
    prompt, lengths = len(answers[0].prompt), [len(a.completion) for a in answers]
    if layout == "plain":
        return len(answers) * (prompt + max(lengths))
    return sum(lengths) + prompt * -(-len(answers) // MOST_SHARED)


def _distinct(answers: Sequence[Answer], samples: int) -> float:
    """Share of a prompt's answers that no other of its answers repeats, averaged over prompts."""
    groups = [answers[k : k + samples] for k in range(0, len(answers), samples)]
    return fmean(len({a.text for a in group}) / len(group) for group in groups)
