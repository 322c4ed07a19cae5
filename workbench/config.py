"""Settings of a round: frozen, strict, read from TOML.

An unknown key is an error that lists the known ones; bounds are checked here, before any model loads. Hand-written
settings are TOML; whatever the program writes is JSON.
"""

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.errors import ConfigError

EXACT_LOSSES = ("sigmoid", "hinge", "robust", "exo_pair", "discopop")
"""Losses of the margin alone: the geometric reference is exact for them (its normaliser cancels)."""

APPROXIMATE_LOSSES = ("ipo", "sigmoid_norm")
"""Losses that divide each side by its length, so that the normaliser no longer cancels."""

LOSSES_ELSEWHERE = "continual_alignment.losses"
"""Entry points of losses that installed packages bring; each leads to a `workbench.maths.PairLoss`. It counts as
approximate unless the function has an attribute `exact` that is True."""

WEIGHT_TOLERANCE = 1e-6


def losses_elsewhere() -> dict[str, EntryPoint]:
    """Losses of installed packages, by name; nothing of them is imported."""
    return {point.name: point for point in entry_points(group=LOSSES_ELSEWHERE)}


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AnchorSettings(Settings):
    """A frozen earlier policy the round is pulled towards."""

    policy: str
    """A policy digest, a prefix of one, a round number, or one of `base`, `parent`, `champion`."""
    weight: float = Field(gt=0, le=1)


class ObjectiveSettings(Settings):
    """The preference loss."""

    loss: str = "sigmoid"
    """sigmoid, hinge, robust, exo_pair, discopop (exact with several anchors), ipo, sigmoid_norm (approximate), or
    one that an installed package registers."""
    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature, per nat; larger pulls harder towards the reference."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of flipped labels; used by `robust` and `exo_pair` only."""
    allow_approximate: bool = False
    """Accept a loss for which several anchors are only approximately one reference."""

    @field_validator("loss")
    @classmethod
    def _loss_is_known(cls, name: str) -> str:
        known = (*EXACT_LOSSES, *APPROXIMATE_LOSSES)
        if name not in known and name not in (elsewhere := losses_elsewhere()):
            raise ValueError(f"unknown loss '{name}'; known losses: {', '.join((*known, *elsewhere))}")
        return name

    @property
    def exact(self) -> bool:
        """Whether several anchors are exactly one reference for this loss; made elsewhere, where it says `exact`."""
        if self.loss in (*EXACT_LOSSES, *APPROXIMATE_LOSSES):
            return self.loss in EXACT_LOSSES
        return getattr(losses_elsewhere()[self.loss].load(), "exact", False) is True

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> Self:
        unused = {*EXACT_LOSSES, *APPROXIMATE_LOSSES} - {"robust", "exo_pair"}
        if self.label_smoothing and self.loss in unused:
            raise ValueError(f"label_smoothing = {self.label_smoothing} has no effect with loss = '{self.loss}'; "
                             "use loss = 'robust' or 'exo_pair', or leave it out")  # fmt: skip
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("loss = 'exo_pair' needs label_smoothing > 0 (the paper uses 0.001)")
        return self


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

    @model_validator(mode="after")
    def _adapter_only(self) -> Self:
        if self.method == "full" and self.upper_layers:
            raise ValueError(
                f"upper_layers = {self.upper_layers} is for adapters; use method = 'lora', or leave it out"
            )
        return self


class NumericsSettings(Settings):
    """What must be equal for two runs to give the same bits."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs matrix products in bfloat16 (autocast); weights and reductions stay in float32."""
    threads: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    """`cuda` computes on one GPU, whose results are the same up to rounding only."""
    base: Literal["whole", "nf4"] = "whole"
    """`nf4` holds the base in four bits below its adapters (Dettmers et al., arXiv 2305.14314); on a GPU only."""

    @model_validator(mode="after")
    def _four_bits_on_a_gpu(self) -> Self:
        if self.base == "nf4" and self.device == "cpu":
            raise ValueError("base = 'nf4' needs device = 'cuda': on a CPU its gradients are wrong; leave it out")
        return self


class EvaluationSettings(Settings):
    """What is measured after the round."""

    suites: tuple[str, ...] = ("choice", "text", "refusal")
    """Names of suites beside retention and samples, which are always measured."""
    guidelines: tuple[str, ...] = ()
    """Names of verifiable guidelines whose compliance is measured on the sampled answers."""
    samples: int = Field(default=32, ge=1)
    """Test prompts of each version answered by the child, to measure KL, length, distinct-2 and compliance."""
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    seed: int = 0


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

    parent: str = "champion"
    version: str = "latest"
    anchors: tuple[AnchorSettings, ...] = (AnchorSettings(policy="parent", weight=1.0),)
    update: bool = False
    """True where the new preference replaces an older one, so that forgetting it is no failure."""
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    numerics: NumericsSettings = NumericsSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()

    @model_validator(mode="after")
    def _four_bits_below_an_adapter(self) -> Self:
        if self.numerics.base == "nf4" and self.training.method == "full":
            raise ValueError("numerics.base = 'nf4' cannot be trained itself; use training.method = 'lora'")
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
        if len(names) > 1 and not self.objective.allow_approximate and not self.objective.exact:
            loss = self.objective.loss
            why = "divides each side by its length" if loss in APPROXIMATE_LOSSES else "does not say `exact = True`"
            raise ValueError(
                f"objective.loss = '{loss}' {why}, so {len(names)} anchors are only approximately one reference; "
                f"use one of {', '.join(EXACT_LOSSES)}, keep one anchor, or set objective.allow_approximate = true"
            )
        return self


S = TypeVar("S", bound="Settings")


def read_settings(path: Path, kind: type[S]) -> S:
    """Settings from a TOML file.

    Args:
        path: the file.
        kind: the settings expected in it.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key or value in it is wrong; names file and key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `workbench plan --write {path}` makes one to edit") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}; correct the line named") from error
    return settings_from(values, kind, where=path.name)


def settings_from(values: dict[str, object], kind: type[S], *, where: str) -> S:
    """Settings from plain values, with errors that name the place and the known keys.

    Raises:
        ConfigError: a key is unknown or a value is out of bounds.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, e, where) for e in error.errors())) from error


def _explain(kind: type[Settings], problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(kind, path[:-1]))
        return f"{where} [{'.'.join(path[:-1]) or 'top'}]: unknown key '{path[-1]}'; known keys: {known}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = "" if problem["type"] == "value_error" else f" (got {problem.get('input')!r})"
    return f"{where} [{'.'.join(path) or 'top'}]: {message}{given}"


def _known_keys(kind: type[Settings], path: list[str]) -> list[str]:
    """Field names of the settings found by walking `path` (list indices are skipped)."""
    for part in path:
        if part.isdigit():
            continue
        annotation: Any = kind.model_fields[part].annotation
        candidates: tuple[Any, ...] = (annotation, *getattr(annotation, "__args__", ()))
        inner: list[type[Settings]] = [a for a in candidates if _is_settings(a)]
        if not inner:
            return []
        kind = inner[0]
    return list(kind.model_fields)


def _is_settings(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)
