"""What a round would cost and what its numbers could show, before anything is loaded.

Time is floating point operations over a measured rate, so it is right within a factor of about two; what is cached or
measured already is not subtracted. Operations per token are the usual 2 per parameter forward and 4 backward
(Kaplan et al., arXiv 2001.08361); LoRA leaves out the gradients of frozen weights and needs 2 backward, and none
below the layers it adapts.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from preference_data.samples import choice_items
from workbench.config import TrainingSettings, kl_terms
from workbench.drift.power import smallest_share_change
from workbench.errors import ModelError
from workbench.policies.checkpoints import read_shapes
from workbench.policies.records import PolicyRecord
from workbench.rounds.plan import distinct_policies
from workbench.tasks import Plan, Workload

FORWARD, BACKWARD = 2, {"lora": 2, "full": 4}
"""Operations per parameter and token."""

SUITE_TOKENS = 12_000
"""Assumed length of a suite: about that of 50 kB of text; 300 questions with four options have a third of it."""

EFFICIENCY = 0.5
"""Share of the rate of plain matrix products that a whole model reaches."""

MATRIX = 2
"""Dimensions of a linear layer's weight."""

PROCESS_BYTES = 700 << 20
"""Python with its libraries."""

ACTIVATION_BYTES = {"float32": 98, "bfloat16": 62}
"""Kept per token, layer and unit of width between forward and backward, gated MLP and adapter included, as autograd
saves them for SmolLM2-135M. Where they do not fit, a round computes them again."""


LOGIT_BYTES = {"float32": 4, "bfloat16": 2}
"""Of a word's logit at a position."""


class Shape(NamedTuple):
    """What memory and time depend on.

    Attributes:
        parameters: of the base.
        adapted: sum of (inputs + outputs) over the linear layers; times the rank, the parameters of a LoRA adapter.
        width, layers: of the base.
        words: of its vocabulary.
    """

    parameters: int
    adapted: int
    width: int
    layers: int
    words: int = 0


def shape_of(base: PolicyRecord) -> Shape:
    """The shape of a base, from its configuration and the headers of its weights."""
    tensors = read_shapes(Path(base.path), ModelError)
    embedded = {s for name, s in tensors.items() if name.endswith(("embed_tokens.weight", "wte.weight"))}
    linear = [s for s in tensors.values() if len(s) == MATRIX and s not in embedded]
    return Shape(
        parameters=base.facts["parameters"],
        adapted=sum(rows + columns for rows, columns in linear),
        width=base.facts["hidden_size"],
        layers=base.facts["num_hidden_layers"],
        words=base.facts.get("vocab_size", 0),
    )


def suite_sizes(names: Collection[str]) -> dict[str, int]:
    """Items of those of the suites named whose number is a share and whose size is known before they run."""
    return {"choice": len(choice_items())} if "choice" in names else {}


class Sight(NamedTuple):
    """The smallest change of one number that would be found four times in five.

    Attributes:
        name: such as `accuracy/<version>`.
        n: items.
        change: as a share; None where n is too small for any.
    """

    name: str
    n: int
    change: float | None


class Estimated(NamedTuple):
    """The dry run of a round.

    Attributes:
        steps: optimizer steps.
        trainable: parameters that training changes.
        seconds: by part of the round.
        memory_bytes: peak of the process that trains.
        sights: what each number judged could show.
    """

    workload: Workload
    steps: int
    trainable: int
    seconds: dict[str, float]
    memory_bytes: int
    sights: tuple[Sight, ...]

    @property
    def total_s(self) -> float:
        """All parts together."""
        return sum(self.seconds.values())


def estimate(plan: Plan, load: Workload, shape: Shape, suites: Mapping[str, int]) -> Estimated:
    """Time, memory and the smallest changes that can be seen.

    Args:
        plan: the round.
        load: its tokens.
        shape: of the base.
        suites: items of each suite whose number is a share, where known.
    """
    s = plan.training
    batches = -(-load.train_pairs * s.epochs // s.batch_size)
    trainable = shape.parameters if s.method == "full" else round(s.rank * shape.adapted * _trained_share(s, shape))
    sights = [
        Sight(f"accuracy/{digest}", n, smallest_share_change(n)) for digest, n in load.test_pairs.items() if n
    ] + [Sight(f"tax/{name}", n, smallest_share_change(n)) for name, n in suites.items()]
    return Estimated(
        workload=load,
        steps=plan.online.steps if plan.online.on else -(-batches // s.accumulation),
        trainable=trainable,
        seconds=_seconds(plan, load, shape),
        memory_bytes=_memory(plan, load, shape, trainable),
        sights=tuple(sights),
    )


def _seconds(plan: Plan, load: Workload, shape: Shape) -> dict[str, float]:
    anchors = {plan.parent.digest, *(a.policy.digest for a in plan.anchors)}
    measured = len(distinct_policies(plan)) + 1
    sampled = plan.evaluation.samples * plan.evaluation.max_new_tokens * len(load.test_tokens)
    read = sum(load.test_tokens.values()) + len(plan.evaluation.suites) * SUITE_TOKENS + sampled
    backward = BACKWARD[plan.training.method] * _trained_share(plan.training, shape)
    # The child's samples are read once more by itself and by every policy its KL is measured to.
    operations = {
        "score": FORWARD * load.train_tokens * len(anchors),
        "optimise": _learnt_from(plan, load, backward),
        "evaluate": FORWARD * (read * measured + sampled * measured),
    }
    return {name: n * shape.parameters / (load.flops_per_s * EFFICIENCY) for name, n in operations.items()}


def _learnt_from(plan: Plan, load: Workload, backward: float) -> float:
    """Operations per parameter of training; fresh answers are written, read by every anchor, and learned from."""
    if not plan.online.on:
        return (FORWARD + backward) * load.train_tokens * plan.training.epochs
    o = plan.online
    prompt = load.train_tokens / max(load.train_pairs, 1)  # of a prompt with its answers: at most as long as these
    tokens = o.steps * o.prompts * (prompt + o.samples * o.max_new_tokens)
    return tokens * (FORWARD * (1 + len(plan.anchors) + bool(o.kl_base_budget)) + FORWARD + backward)


def _trained_share(training: TrainingSettings, shape: Shape) -> float:
    """Share of the layers that gradients go through."""
    return min(1.0, training.upper_layers / shape.layers) if training.upper_layers else 1.0


def _memory(plan: Plan, load: Workload, shape: Shape, trainable: int) -> int:
    # Weights twice, for what is trained and for what it is proved against; a gradient and Adam's two moments. An adapter
    # comes on top of its base.
    adapter = trainable if plan.training.method == "lora" else 0
    weights = 4 * (2 * shape.parameters + adapter) + 12 * trainable
    # The largest batch of some: one pair as long as any, the others of mean length; or a prompt with its fresh answers.
    others = (plan.training.batch_size - 1) * load.train_tokens / max(load.train_pairs, 1)
    if plan.online.on:
        others = plan.online.samples * plan.online.max_new_tokens
    through = shape.layers * _trained_share(plan.training, shape)
    activations = ACTIVATION_BYTES[plan.numerics.dtype] * shape.width * through
    if plan.training.method == "full":  # under a head in training a KL keeps the other policy's logits, not its states
        activations += (
            LOGIT_BYTES[plan.numerics.dtype] * shape.words * kl_terms(plan.penalties, plan.online, len(plan.anchors))
        )
    return PROCESS_BYTES + weights + round(activations * (load.longest + others))
