"""Settings of rounds that learn from the policy's own fresh answers and their rewards."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from workbench.config.settings import Settings

REWARDS = "rule:GUIDELINE, code:NAME, model:NAME, or the address of a server (http://… or https://…)"
MODEL = "model:"
"""How settings name a reward model: by this and its name or digest."""
AI = "ai:"
"""How settings name an AI judge: by this, the address of an endpoint and, behind `#`, a model."""
_REWARD = re.compile(r"(rule|code|model):\S+|https?://\S+")
_JUDGE = re.compile(AI + r"https?://[^\s#]+#\S+")


class RewardSettings(Settings):
    """Something that says how good an answer is; higher is better."""

    by: str
    """`rule:GUIDELINE` (in units of the guideline's margin), `code:NAME` of an installed package, `model:NAME` of a reward
    model (`workbench rewards`), or the address of a server that is posted prompts with answers."""
    weight: float = 1.0
    """What its numbers are multiplied by; all rewards are added up."""
    timeout_s: float = Field(default=30.0, gt=0)
    """For a server: how long it may take, each of three times."""

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        if not _REWARD.fullmatch(by):
            raise ValueError(f"by = {by!r}: expected {REWARDS}")
        return by


class GuardSettings(RewardSettings):
    """What a round is watched by: a reward that is not trained on, or an AI judge."""

    guideline: str = ""
    """ai: what it judges by."""

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        if not (_REWARD.fullmatch(by) or _JUDGE.fullmatch(by)):
            raise ValueError(f"by = {by!r}: expected {REWARDS}, or {AI}URL#MODEL")
        return by

    @model_validator(mode="after")
    def _a_judge_has_a_guideline(self) -> Self:
        if self.guideline and not self.by.startswith(AI):
            raise ValueError(f"guideline is what an AI judge judges by, but by = {self.by!r}; leave it out")
        return self


class OnlineSettings(Settings):
    """Learning from fresh answers. The prompts are those of the version's training pairs and of replayed ones."""

    objective: Literal["none", "grpo", "rloo", "dpo", "best", "distil"] = "none"
    """none (from the version's pairs); grpo (rewards against the group, exact KL in the loss); rloo (the same with a sampled
    KL in the reward); dpo (every two answers, labelled by their rewards); best (the best answer is copied);
    distil (no reward: towards the anchors, at the policy's own answers)."""
    rewards: tuple[RewardSettings, ...] = ()
    beta: float = Field(default=0.05, gt=0)
    """Weight of the KL to the anchors at answers to new prompts: reward per nat."""
    beta_old: float = Field(default=0.05, ge=0)
    """The same at answers to replayed prompts, which have no reward of their own."""
    kl_target: float | None = Field(default=None, gt=0)
    """Nats per answer: both weights rise while the KL is above it, and fall while it is below."""
    kl_base_budget: float | None = Field(default=None, gt=0)
    """Nats per token from the base, as `gate.max_kl_base`, for all rounds of the lineage together: as it is used up the weights
    rise, whatever `kl_target` leaves; a round that would begin beyond it is refused."""
    steps: int = Field(default=50, ge=1)
    """Optimizer steps, each on answers of the policy as it is then."""
    prompts: int = Field(default=8, ge=1)
    """New prompts per step; replayed ones come on top, as many as their share says."""
    samples: int = Field(default=4, ge=2, le=64)
    """Answers per prompt."""
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    """1 draws from the policy itself, which is what the formulas are about."""
    workers: int = Field(default=0, ge=0, le=64)
    """On Ray, processes that write the answers, each with `numerics.threads` CPUs; 0, and in process, the trainer writes them."""
    engine: Literal["own", "vllm"] = "own"
    """What workers write with; vllm on GPUs, where it is installed, for adapters."""
    staleness: int = Field(default=0, ge=0, le=8)
    """How many optimizer steps the policy that writes lies behind the one that learns: 0 writes and learns in turn, 1 or more
    writes while it learns. What the policy has since become is made up for by importance weights (not in dpo, whose optimum
    does not depend on who wrote)."""
    scaled: bool = False
    """grpo: divide by the group's standard deviation, as published; it moves the optimum."""
    guard: GuardSettings | None = None
    """A reward that is not trained on, or an AI judge, `ai:URL#MODEL`, that compares an answer to each new prompt with one of the
    policy the round started from. Where it falls for certain while the trained one rises, the round stops."""
    guard_window: int = Field(default=10, ge=5)
    """Steps compared, the newest so many with the first so many, whenever so many more were taken."""

    @model_validator(mode="after")
    def _rewards_where_needed(self) -> Self:
        needed = self.objective not in {"none", "distil"}
        if needed and not self.rewards:
            raise ValueError(
                f"objective = '{self.objective}' needs rewards; give at least one, such as by = 'rule:own-words'"
            )
        if not needed and self.rewards and self.objective == "distil":
            raise ValueError("objective = 'distil' has no reward; leave rewards out, or choose another objective")
        if (self.staleness or self.engine != "own") and self.temperature != 1:
            raise ValueError(
                f"staleness = {self.staleness} and engine = '{self.engine}' weigh answers by their chance under the policy, which "
                f"temperature = {self.temperature:g} changes; use temperature = 1, or staleness = 0 and engine = 'own'"
            )
        if self.engine == "vllm" and not self.workers:
            raise ValueError("engine = 'vllm' is for workers, of which there are none; set workers, such as 1")
        return self

    @model_validator(mode="after")
    def _a_budget_is_steered_to(self) -> Self:
        if self.kl_base_budget and not self.kl_target:
            raise ValueError(
                f"kl_base_budget = {self.kl_base_budget:g} is kept by steering, but kl_target is off; set the nats per answer that this "
                "round may use, such as kl_target = 6.0"
            )
        return self

    @model_validator(mode="after")
    def _a_guard_can_tell(self) -> Self:
        if self.guard and self.objective == "distil":
            raise ValueError(
                "guard: objective = 'distil' has no reward that could rise while it falls; leave guard out"
            )
        if self.guard and self.guard.by in {one.by for one in self.rewards}:
            raise ValueError(f"guard: {self.guard.by!r} is trained on, so it cannot tell; name another reward")
        if self.guard and self.steps < 2 * self.guard_window:
            raise ValueError(
                f"guard: it compares the last guard_window = {self.guard_window} steps with the first ones, and there are "
                f"{self.steps} steps, so it would never speak; take at least {2 * self.guard_window}, or lower guard_window"
            )
        return self

    @property
    def weighted(self) -> bool:
        """Whether who wrote differs from who learns, and the objective asks who wrote."""
        return self.objective != "dpo" and (self.staleness > 0 or self.engine != "own")

    @property
    def on(self) -> bool:
        """Whether fresh answers are learned from."""
        return self.objective != "none"
