"""Settings of a round and of what else computes.

Hand-written settings are TOML; whatever the program writes is JSON.
"""

import operator
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

from workbench.config.losses import APPROXIMATE_LOSSES, EXACT_LOSSES, ObjectiveSettings
from workbench.config.methods import (
    AfterSettings,
    MergingSettings,
    MovingSettings,
    PenaltySettings,
    ReplaySettings,
    ScheduleSettings,
)
from workbench.config.online import OnlineSettings
from workbench.config.presets import DEFAULT, with_method
from workbench.config.settings import Settings

WEIGHT_TOLERANCE = 1e-6
Rounded = Literal["bf16", "q8_0", "q4_0"]
"""Half precision, and GGUF's eight and four bits with a scale per 32 weights."""
Judged = Literal["child", "merged", "bf16", "q8_0", "q4_0"]


class AnchorSettings(Settings):
    """A frozen earlier policy the round is pulled towards."""

    policy: str
    """A policy digest, a prefix of one, a round number, or one of `base`, `parent`, `champion`."""
    weight: float = Field(gt=0, le=1)


ONE_EACH = frozenset({"given", "slice", "learner", "apart"})
"""Schedules under which every pair has one anchor, so that its reference is a policy; of listed ones there may be several."""
PARENT_ALONE = (AnchorSettings(policy="parent", weight=1.0),)


class TrainingSettings(Settings):
    """How the child is optimised."""

    method: Literal["lora", "full"] = "lora"
    rank: int = Field(default=16, ge=1, le=512)
    alpha: int = Field(default=32, ge=1)
    upper_layers: int = Field(default=0, ge=0)
    """Adapt this many of the uppermost layers only, 0 for all: no gradient then goes through those below."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    epochs: int = Field(default=1, ge=1, le=100)
    batch_size: int = Field(default=4, ge=1)
    """Pairs per forward pass."""
    accumulation: int = Field(default=2, ge=1)
    """Forward passes per optimizer step."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=512, ge=8)
    """Tokens of prompt and answer together; longer pairs are cut at the end of the answer."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""
    seed: int = Field(default=0, ge=0)
    token_metrics: bool = Field(default=False, exclude_if=operator.not_)
    """Tell with every step the entropy of what predicts a token of its answers, nats, and how often that token is the likeliest."""

    @model_validator(mode="after")
    def _adapter_only(self) -> Self:
        if self.method == "full" and self.upper_layers:
            raise ValueError(
                f"upper_layers = {self.upper_layers} is for adapters; use method = 'lora', or leave it out"
            )
        return self


class MachineSettings(Settings):
    """What is faster on some machines than on others."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs matrix products in bfloat16 (autocast); weights and reductions stay in float32."""
    threads: int = Field(default=1, ge=1)


class NumericsSettings(MachineSettings):
    """What must be equal for two runs to give the same bits."""

    device: Literal["cpu", "cuda"] = "cpu"
    """`cuda` computes on one GPU, whose results are the same up to rounding only."""
    base: Literal["whole", "nf4"] = "whole"
    """`nf4` holds the base in four bits below its adapters (Dettmers et al., arXiv 2305.14314); on a GPU only."""

    @model_validator(mode="after")
    def _four_bits_on_a_gpu(self) -> Self:
        if self.base == "nf4" and self.device == "cpu":
            raise ValueError("base = 'nf4' needs device = 'cuda': on a CPU its gradients are wrong; leave it out")
        return self

    @property
    def left_out(self) -> set[str]:
        """What is left to the workspace to say; nothing on a GPU, for what was measured is the processor."""
        return set() if self.device == "cuda" else MachineSettings.model_fields.keys() - self.model_fields_set


class EvaluationSettings(Settings):
    """What is measured after the round."""

    suites: tuple[str, ...] = ("choice", "text", "refusal")
    """Suites beside retention and samples, which are always measured: choice, text, refusal, `file:PATH` for questions of
    one's own, `lm-eval/TASK`, or one that an installed package registers."""
    guidelines: tuple[str, ...] = ()
    """Names of verifiable guidelines whose compliance is measured on the sampled answers."""
    samples: int = Field(default=32, ge=1)
    """Test prompts of each version answered by the child, to measure KL, length, distinct-2 and compliance."""
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    seed: int = 0


def kl_terms(penalties: PenaltySettings, online: OnlineSettings, anchors: int) -> int:
    """To how many policies the KL over the vocabulary is part of a round's loss, of so many anchors."""
    if online.on:
        return anchors if online.objective in {"grpo", "best", "distil"} else 0
    return anchors * bool(penalties.kl_new or penalties.kl_old) + bool(penalties.kl_base)


class GateSettings(Settings):
    """What a child must reach to be promoted. A number that is missing fails."""

    min_gain: float = 0.0
    """Smallest accuracy gain over the parent on the new version's test pairs, lower 95 % bound above it."""
    max_retention_drop: float = Field(default=0.05, ge=0)
    """Largest fall of accuracy on any earlier version against the parent, beyond which the child is rejected."""
    max_tax: float = Field(default=0.02, ge=0)
    """Largest fall on a capability suite against the base, as a share."""
    max_kl_parent: float = Field(default=0.5, gt=0)
    """Nats per token between child and parent, on the child's samples."""
    max_kl_base: float = Field(default=1.0, gt=0)
    """The same against the base: the budget all rounds share."""


class GenerateSettings(Settings):
    """How a policy answers prompts outside a round."""

    count: int = Field(default=2, ge=1)
    """Answers per prompt; two make a comparison."""
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    """0 takes the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    batch_size: int = Field(default=32, ge=1)
    seed: int = Field(default=0, ge=0)
    numerics: NumericsSettings = NumericsSettings()


class RoundSettings(Settings):
    """One round, as a person writes it."""

    method: str = DEFAULT
    """A named combination of the settings below; what is set beside it wins. `workbench methods` lists them."""
    parent: str = "champion"
    version: str = "latest"
    start: Literal["parent", "base"] = "parent"
    """Whose weights training starts from; the child follows the parent in the lineage either way."""
    anchors: tuple[AnchorSettings, ...] = PARENT_ALONE
    update: bool | str = False
    """True where the new preference replaces that of the round before, the name of a version where it replaces an older
    one: it is replayed no more, and forgetting it is no failure."""
    schedule: ScheduleSettings = ScheduleSettings()
    replay: ReplaySettings = ReplaySettings()
    moving: MovingSettings = MovingSettings()
    penalties: PenaltySettings = PenaltySettings()
    merging: MergingSettings = MergingSettings()
    after: AfterSettings = AfterSettings()
    online: OnlineSettings = OnlineSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    numerics: NumericsSettings = NumericsSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    judged: Judged = "child"
    """What the gate judges: the child as it was trained; `merged`, its adapter folded into the base, as it is exported to
    ship; `bf16`, `q8_0` or `q4_0`, that with its matrices rounded to what a server holds."""

    @model_validator(mode="before")
    @classmethod
    def _method_below(cls, values: Any) -> Any:
        """The settings of the method, where the values do not say otherwise."""
        return with_method(cast("dict[str, Any]", values)) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _four_bits_below_an_adapter(self) -> Self:
        if self.numerics.base == "nf4" and self.training.method == "full":
            raise ValueError("numerics.base = 'nf4' cannot be trained itself; use training.method = 'lora'")
        return self

    @model_validator(mode="after")
    def _an_engine_for_adapters_on_gpus(self) -> Self:
        n = self.numerics
        fits = (n.device, n.dtype, n.base, self.training.method) == ("cuda", "bfloat16", "whole", "lora")
        if self.online.engine == "vllm" and not fits:
            raise ValueError("online.engine = 'vllm' writes on GPUs, in bfloat16, with adapters over a whole base; set numerics.device = "
                             "'cuda', numerics.dtype = 'bfloat16', numerics.base = 'whole' and training.method = 'lora', or leave "
                             "engine out")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _anchors_make_one_reference(self) -> Self:
        if not self.anchors:
            raise ValueError("anchors: none given; name at least one, such as policy = 'parent', weight = 1.0")
        names = [a.policy for a in self.anchors]
        if len(set(names)) < len(names):
            raise ValueError(f"anchors: {names} names a policy twice; give each one weight")
        total = sum(a.weight for a in self.anchors)
        if abs(total - 1) > WEIGHT_TOLERANCE:
            weights = " + ".join(f"{a.weight:g}" for a in self.anchors)
            raise ValueError(f"anchors: weights must sum to 1, got {weights} = {total:g}")
        several = len(names) > 1 or self.schedule.kind not in ONE_EACH or 0 < self.moving.share < 1
        if several and not self.objective.allow_approximate and not self.objective.exact:
            loss = self.objective.loss
            known = loss in APPROXIMATE_LOSSES or self.objective.of_answers
            why = "needs each side apart" if known else "does not say `exact = True`"
            count = len(names) if len(names) > 1 else "several"
            raise ValueError(
                f"objective.loss = '{loss}' {why}, so {count} anchors are only approximately one reference; "
                f"use one of {', '.join(EXACT_LOSSES)}, keep one anchor, or set objective.allow_approximate = true"
            )
        return self

    @model_validator(mode="after")
    def _schedule_or_list(self) -> Self:
        if self.schedule.kind != "given" and self.anchors != PARENT_ALONE:
            raise ValueError(
                f"schedule.kind = '{self.schedule.kind}' finds the anchors, but anchors are listed as well; "
                "leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _old_pairs_are_there(self) -> Self:
        """What only concerns replayed pairs needs some."""
        if self.replay.on:
            return self
        needed = {
            "penalties.kl_old": self.penalties.kl_old > 0,
            "penalties.hold": self.penalties.hold > 0,
            f"schedule.kind = '{self.schedule.kind}'": self.schedule.kind in {"origin", "learner", "apart"},
        }
        if names := [name for name, given in needed.items() if given]:
            raise ValueError(
                f"{names[0]} concerns replayed pairs, but replay.share is 0; set it, such as 0.2, "
                "or a method without them, such as method = 'plain'"
            )
        return self

    @model_validator(mode="after")
    def _fresh_answers_are_held_by_their_kl(self) -> Self:
        """What is reckoned on pairs has no place in a round without them; a floor under old pairs is `beta_old` there."""
        needed = {
            "replay.answers = 'fresh'": self.replay.on and self.replay.answers == "fresh",
            "moving.share": self.moving.share > 0,
            **{
                f"penalties.{name}": getattr(self.penalties, name) > 0
                for name in ("kl_new", "kl_old", "kl_base", "ewc", "orthogonal")
            },
        }
        if self.online.on and (names := [name for name, given in needed.items() if given]):
            raise ValueError(f"{names[0]} concerns pairs, but online.objective = '{self.online.objective}' learns from fresh answers; hold "
                             "them by online.beta, online.beta_old and the anchors, or use a method without it, such as method = "
                             "'recommended'")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _tokens_of_pairs(self) -> Self:
        if self.online.on and self.training.token_metrics:
            raise ValueError(f"training.token_metrics tells chosen and rejected answers apart, but online.objective = "
                             f"'{self.online.objective}' learns from fresh ones; leave it out")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _answers_by_themselves(self) -> Self:
        """What is reckoned on pairs has no place in a round on answers by themselves."""
        if self.online.on or not self.objective.of_answers:
            return self
        needed = {
            "replay.answers = 'fresh'": self.replay.answers == "fresh",
            "replay.choice = 'margin'": self.replay.choice == "margin",
            f"schedule.kind = '{self.schedule.kind}'": self.schedule.kind in {"drift", "slice"},
            **{
                f"penalties.{name}": getattr(self.penalties, name) > 0
                for name in ("kl_new", "kl_old", "kl_base", "ewc")
            },
            "after.keep": bool(self.after.keep),
            "training.token_metrics": self.training.token_metrics,
        }
        loss = f"objective.loss = '{self.objective.loss}'"
        if names := [name for name, given in needed.items() if given]:
            raise ValueError(f"{names[0]} concerns pairs, but {loss} learns from answers by themselves; leave it out, or use a loss of "
                             "pairs, such as sigmoid")  # fmt: skip
        if self.training.batch_size == 1:
            raise ValueError(
                f"training.batch_size = 1: {loss} holds each answer against a mean over its batch; set 2 or more, such as 8"
            )
        return self

    @model_validator(mode="after")
    def _near_the_start(self) -> Self:
        """What compares with the starting policy makes sense only if that is the parent."""
        needed = {
            "penalties.ewc": self.penalties.ewc > 0,
            "penalties.hold": self.penalties.hold > 0,
            "penalties.orthogonal": self.penalties.orthogonal > 0,
            f"merging.kind = '{self.merging.kind}'": self.merging.kind != "none",
            "after": self.after != AfterSettings(),
        }
        if self.start == "base" and (names := [name for name, given in needed.items() if given]):
            raise ValueError(f"{names[0]} holds the child to the policy it starts from, which start = 'base' makes the "
                             "base; use start = 'parent', or another method, such as method = 'retrain'")  # fmt: skip
        if self.after.by_rounds and self.training.method == "full":
            name = f"merge = '{self.after.merge}'" if self.after.overlap is None else "overlap"
            raise ValueError(f"after.{name} takes updates of adapters apart; use training.method = 'lora'")
        if self.penalties.orthogonal and self.training.method == "full":
            raise ValueError(
                "penalties.orthogonal compares updates of adapters; use training.method = 'lora', or penalties.ewc"
            )
        return self
