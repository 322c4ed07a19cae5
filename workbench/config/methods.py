"""Settings of what holds a round to the rounds before it: replay, anchors by a rule, penalties, averaging afterwards.

Here everything is off by default. `workbench.config.presets` names combinations that have been published or measured, one
of which a round takes that names none.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from workbench.config.settings import Settings


class ReplaySettings(Settings):
    """Training pairs of the lineage's earlier rounds, trained on again.

    Where a newer pair says the opposite of an older one about the same two answers, the newer one wins.
    """

    share: float | Literal["all"] = 0.0
    """0.2 replays one pair for every five new ones, or of every five old ones; `all` takes all there are."""
    of: Literal["new", "each"] = "new"
    """What the share is of: `new`, the new pairs, for all earlier rounds together; `each`, the pairs of each earlier round,
    as a memory does that keeps so much of every round."""
    choice: Literal["random", "coverage", "margin"] = "random"
    """random; coverage (evenly over the values of all slices); margin (evenly over quartiles of the parent's margin)."""
    answers: Literal["kept", "fresh"] = "kept"
    """`fresh` lets the parent answer the replayed prompts anew and ranks its answers by its own implicit reward."""
    draw: Literal["round", "epoch"] = "round"
    """`epoch` draws other pairs in every epoch, as from a buffer: as many steps, twice as many pairs in two epochs."""
    weight: float | Literal["balanced"] = 1.0
    """Multiplies the weights of replayed pairs; `balanced` lets each earlier round count as much as the new one, however
    few of its pairs are replayed."""
    age_weight: float = Field(default=1.0, gt=0, le=1)
    """A pair's weight is multiplied by this for every round it is old (NS-DPO)."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _share_is_not_negative(self) -> Self:
        if self.share != "all" and self.share < 0:
            raise ValueError(f"share = {self.share:g}: expected 0 or more, or 'all'")
        if self.weight != "balanced" and self.weight <= 0:
            raise ValueError(f"weight = {self.weight:g}: expected more than 0, or 'balanced'")
        return self

    @property
    def on(self) -> bool:
        """Whether anything is replayed."""
        return self.share == "all" or self.share > 0


class ScheduleSettings(Settings):
    """Anchors by a rule over the lineage, in place of a list.

    Rules that look at accuracy look at select splits only.
    """

    kind: Literal["given", "uniform", "age", "drift", "slice", "origin", "learner", "apart"] = "given"
    """given (the list); uniform (all earlier policies alike); age (weights fall with age); drift (policies whose version
    has fallen since get weight); slice (a pair is held by the policy best on its slice); origin, learner (a replayed
    pair is held by the policy its round started from, or ended with); apart (a new pair is held by the base, a replayed
    one by the parent)."""
    strength: float = Field(default=0.5, gt=0, le=1)
    """age: weight of each policy over that of the next one. drift: share of the weight that fallen versions may get."""
    slice: str = "source"
    """For `slice`: which slice."""


class PenaltySettings(Settings):
    """Terms added to the preference loss; each is off at 0."""

    kl_new: float = Field(default=0.0, ge=0)
    """Times the KL to the anchors, nats per token, at the answers of new pairs."""
    kl_old: float = Field(default=0.0, ge=0)
    """The same at the answers of replayed pairs."""
    kl_direction: Literal["reverse", "forward"] = "reverse"
    """reverse: KL(policy || anchor); forward: KL(anchor || policy)."""
    kl_budget: float | None = Field(default=None, gt=0)
    """Nats per token to the anchors: the weights of the KL terms then rise while it is above, and fall while below."""
    kl_base: float = Field(default=0.0, ge=0)
    """Times the KL to the base at all answers: what all rounds together may move."""
    kl_base_budget: float | None = Field(default=None, gt=0)
    """The same budget for the KL to the base."""
    hold: float = Field(default=0.0, ge=0)
    """Times the square of what the logit of a replayed pair lost against the starting policy's; gains are free."""
    ewc: float = Field(default=0.0, ge=0)
    """Times half the squared distance from the starting policy, each weight by its Fisher information on old pairs."""
    ewc_pairs: int = Field(default=120, ge=1)
    """Old pairs the Fisher information is computed on."""
    orthogonal: float = Field(default=0.0, ge=0)
    """Times how much this round's update reads from the directions that earlier rounds' updates read from (O-LoRA); 1 where it
    does once more what one of them did."""

    @model_validator(mode="after")
    def _a_budget_has_something_to_steer(self) -> Self:
        if self.kl_budget and not (self.kl_new or self.kl_old):
            raise ValueError("kl_budget steers the weights of the KL terms, but kl_new and kl_old are 0; set one")
        if self.kl_base_budget and not self.kl_base:
            raise ValueError("kl_base_budget steers the weight of the KL to the base, but kl_base is 0; set it")
        return self


class MovingSettings(Settings):
    """A reference that follows the policy in training; the anchors keep the rest of the reference."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Of the reference. 1 leaves the anchors out (an EMA anchor as in WARP, or TR-DPO)."""
    rate: float = Field(default=0.01, gt=0, le=1)
    """reference <- (1 - rate) reference + rate policy, in weights; 1 puts the policy in its place (TR-DPO's hard update)."""
    every: int = Field(default=1, ge=1)
    """Optimizer steps between two moves; TR-DPO takes a rate of 0.6, or 1, and a few hundred steps."""


class MergingSettings(Settings):
    """Every optimizer step merged with what earlier rounds did, as in online merging."""

    kind: Literal["none", "dare", "ties"] = "none"
    """dare: numbers of the step are dropped at random (OnDARE); ties: its small ones, and those whose sign the start's
    difference from the base outvotes (OnTIES)."""
    share: float = Field(default=1e-6, ge=0, lt=1)
    """How much of the start's difference from the base every step adds; published with 1e-7 to 5e-6, and collapsed at 1e-4."""
    density: float = Field(default=0.5, gt=0, le=1)
    """Share of numbers that is not dropped, of the step and of that difference."""


class AfterSettings(Settings):
    """What is done to the child's weights after its last step."""

    keep: tuple[float, ...] = ()
    """Shares of the starting policy to try in an average with the child, such as [0, 0.2, 0.4]; the one that
    finds the better answers of all versions' select pairs likeliest, on average, is taken. Empty: no averaging."""
    merge: Literal["linear", "slerp", "ties", "dare_linear", "dare_ties"] = "linear"
    """What an average is: linear; slerp, along the arc between the two task vectors; ties, linear, of an update without its
    small numbers and those whose sign earlier rounds' updates outvote; dare_linear, without numbers drawn at random, the rest
    scaled up; dare_ties, both drawn at random and outvoted."""
    density: float = Field(default=0.5, gt=0, le=1)
    """ties, dare_linear, dare_ties: share of an update's numbers that is not dropped."""
    blocks: int = Field(default=1, ge=1)
    """Blocks of layers that get shares of their own, found one after the other (HMA)."""
    overlap: float | None = Field(default=None, ge=0, le=1)
    """What is left of an update where it points along earlier rounds' updates (SLMC of LifeAlign); None: not used."""
    energy: float = Field(default=0.9, gt=0, le=1)
    """SLMC: share of an update's squared singular values that is kept."""

    @property
    def by_rounds(self) -> bool:
        """Whether it reads what each earlier round did."""
        return self.overlap is not None or self.merge in {"ties", "dare_ties"}

    @model_validator(mode="after")
    def _shares_are_shares(self) -> Self:
        if any(not 0 <= share < 1 for share in self.keep):
            raise ValueError(f"keep = {list(self.keep)}: expected shares from 0 to below 1")
        if self.blocks > 1 and not self.keep:
            raise ValueError(f"blocks = {self.blocks} has no effect without keep; give shares to try")
        if self.merge != "linear" and not self.keep:
            raise ValueError(
                f"merge = '{self.merge}' has no effect without keep; give shares to try, such as [0, 0.2, 0.4]"
            )
        return self
