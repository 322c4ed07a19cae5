"""Small frozen messages across steps and processes, and the tools a round is given.

Jobs and results hold facts and paths, never models or tensors, so that a job means the same in this process, in a
Ray worker and in a test's fake. Paths are absolute: a worker may run in another directory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from preference_data.records import Split
from workbench.config import (
    AfterSettings,
    EvaluationSettings,
    GateSettings,
    Judged,
    MergingSettings,
    MovingSettings,
    NumericsSettings,
    ObjectiveSettings,
    OnlineSettings,
    PenaltySettings,
    ReplaySettings,
    Rounded,
    ScheduleSettings,
    TrainingSettings,
)


class PolicyRef(NamedTuple):
    """Where a policy's weights are and what they must hash to.

    Attributes:
        digest: content id of the policy; for a base, of its weight files.
        kind: `full` weights or an `adapter` over the base.
        path: folder with the policy's own files.
        base: digest of the base of its lineage (its own for a base).
        base_path: folder of that base; its tokenizer and chat template are the lineage's.
        tokenizer: digest of tokenizer and chat template.
    """

    digest: str
    kind: Literal["full", "adapter"]
    path: str
    base: str
    base_path: str
    tokenizer: str


class VersionRef(NamedTuple):
    """A dataset version: its digest and its folder."""

    digest: str
    path: str


class Anchor(NamedTuple):
    """A frozen policy and its weight in the geometric reference; the weights of a plan sum to 1."""

    policy: PolicyRef
    weight: float


AGE, NEW, EPOCHS = "_age", "0", "_epochs"
"""Slices of a training pair: for how many rounds it has been known, and the value for a new one; in which epochs it is
trained on, where not in all. No names that data would use."""


class SliceWeights(NamedTuple):
    """Weights of anchors that depend on the pair.

    Attributes:
        slice: name of the slice that decides.
        weights: by value of the slice, one weight per anchor, summing to 1; other pairs have the anchors' own weights.
    """

    slice: str
    weights: dict[str, tuple[float, ...]]


class Past(NamedTuple):
    """A policy of a lineage and the version it was trained on, where known; `update` as in its round's plan."""

    policy: PolicyRef
    version: VersionRef | None
    update: bool | str = False


class Progress(NamedTuple):
    """One thing that happened inside a step; kept in the journal and shown as a bar.

    Attributes:
        step: the journal step, such as `optimise`.
        done, total: units of work (pairs, optimizer steps, items).
        facts: numbers worth showing (`loss`, `kl_parent`, `pairs_per_s`, …).
    """

    step: str
    done: int
    total: int
    facts: dict[str, float]


Report = Callable[[Progress], bool]
"""Records progress; answers True where somebody asked the round to stop."""


def reporting(watch: Callable[[Progress], None]) -> Report:
    """Progress to whoever watches; nothing is ever asked to stop."""

    def report(progress: Progress) -> bool:
        watch(progress)
        return False

    return report


class Part(NamedTuple):
    """Which part of some work: number `number` of `of`, counted from 0."""

    number: int
    of: int


WHOLE = Part(0, 1)


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """Log-probabilities of a version's pairs under one policy.

    Attributes:
        splits: which of train, select and test.
        cache: database URL of the score cache; what is in it is not computed again.
        batch_size: answers per forward pass; the result does not depend on it beyond rounding.
        output: folder to write `scores.parquet` into.
        part: which of the pairs; several parts share the cache, so that the whole then finds all of it there.
    """

    policy: PolicyRef
    version: VersionRef
    splits: tuple[Split, ...]
    numerics: NumericsSettings
    max_length: int
    batch_size: int
    cache: str
    output: str
    part: Part = WHOLE


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Everything that determines the child.

    Attributes:
        parent: the policy that training starts from.
        version: the pairs trained on.
        tables: per policy digest (parent and every anchor), the folder with its `scores.parquet`.
        scratch: folder for checkpoints; survives attempts, so that a killed step goes on.
        output: folder to write the child's weights into.
        plan: digest of the round's plan; a checkpoint of another plan is not used.
        by_slice: anchors' weights where they depend on the pair.
        lineage: the base and what came of it, the parent last; for what compares updates of several rounds.
        history: versions of the lineage's earlier rounds; for what looks at old pairs.
        versions: whose select pairs decide where something is chosen.
        report_to: trackers that are told of every step, as transformers names them; they change nothing of the child.
    """

    parent: PolicyRef
    anchors: tuple[Anchor, ...]
    version: VersionRef
    tables: dict[str, str]
    objective: ObjectiveSettings
    training: TrainingSettings
    numerics: NumericsSettings
    scratch: str
    output: str
    plan: str
    by_slice: SliceWeights | None = None
    lineage: tuple[PolicyRef, ...] = ()
    history: tuple[VersionRef, ...] = ()
    versions: tuple[VersionRef, ...] = ()
    moving: MovingSettings = field(default_factory=MovingSettings)
    penalties: PenaltySettings = field(default_factory=PenaltySettings)
    merging: MergingSettings = field(default_factory=MergingSettings)
    after: AfterSettings = field(default_factory=AfterSettings)
    online: OnlineSettings = field(default_factory=OnlineSettings)
    reward_models: tuple[PolicyRef, ...] = ()
    report_to: tuple[str, ...] = ()


INFLUENCE = "influence.jsonl"
"""Training pairs and their part in a fall, one per line."""


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """Which training pairs of a round moved its child away from what a version taught.

    Attributes:
        trained: what the round trained.
        child: what came of it.
        version: what fell; its train and select pairs that turned say which way is back.
        within: only pairs of this slice, such as `language=de`; all where empty.
        output: folder to write `INFLUENCE` into.
    """

    trained: TrainJob
    child: PolicyRef
    version: VersionRef
    within: str
    output: str

    @property
    def numerics(self) -> NumericsSettings:
        """In single precision: small steps are what is measured."""
        return self.trained.numerics.model_copy(update={"dtype": "float32"})


@dataclass(frozen=True, slots=True)
class MergeJob:
    """A policy's adapter folded into its base, written to `output` as a full model.

    Attributes:
        rounded: what its matrices are rounded to; None for not at all.
        start: a policy of the same base that is mixed in; `share` is the policy's, between 0 and 1.
    """

    policy: PolicyRef
    output: str
    numerics: NumericsSettings
    rounded: Rounded | None = None
    start: PolicyRef | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Measurements of one policy.

    Attributes:
        versions: dataset versions; their test pairs are retention, their test prompts are answered.
        tables: per version digest, the folder with this policy's `scores.parquet` of test pairs and single answers.
        suites: names of further suites.
        against: policies to measure KL to on the policy's own samples, by digest.
        output: folder to write `items.jsonl` into.
    """

    policy: PolicyRef
    versions: tuple[VersionRef, ...]
    tables: dict[str, str]
    suites: tuple[str, ...]
    against: dict[str, PolicyRef]
    settings: EvaluationSettings
    numerics: NumericsSettings
    max_length: int
    output: str


@dataclass(frozen=True, slots=True)
class GenerateJob:
    """Answers of one policy to a file of prompts.

    Attributes:
        prompts: JSONL file, one prompt (list of messages) with its slices per line.
        count: answers per prompt.
        output: folder to write `completions.jsonl` into.
    """

    policy: PolicyRef
    prompts: str
    count: int
    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int
    seed: int
    numerics: NumericsSettings
    output: str


FILE, HASH = "file:", 12
"""How the names of suites begin whose questions are in a file; a plan adds `#` and so many digits of the file's hash."""


def suite_label(name: str) -> str:
    """What a plan's suite is called in the ledger, up to a hash it may add itself; a file's by its name and hash."""
    if not name.startswith(FILE):
        return name
    path, _, held = name.removeprefix(FILE).partition("#")
    return f"{Path(path).stem}/{held}"


def suite_title(suite: str) -> str:
    """What people call a suite of the ledger: its name without the hash of what it asks."""
    name, _, held = suite.rpartition("/")
    return name if name and len(held) == HASH and set(held) <= set("0123456789abcdef") else suite


class Item(NamedTuple):
    """One measured number of one policy on one item; the ledger keeps them all.

    Attributes:
        suite: such as `retention/<version digest>`, `choice`, `samples`.
        item: id of the item within the suite, equal for all policies.
        metric: such as `margin`, `correct`, `bits`, `kl/<digest>`.
        value: the number, in the metric's unit.
        group: items of one group are not independent (tokens of one sample, pairs of one prompt).
        slices: what the item belongs to.
        detail: what a page shows when the number is opened (the text, the options, …).
    """

    suite: str
    item: str
    metric: str
    value: float
    group: str
    slices: dict[str, str]
    detail: dict[str, Any]


class Workload(NamedTuple):
    """What a round would read, counted with the tokenizer alone, and how fast this machine multiplies.

    Attributes:
        train_pairs: pairs of the train split that fit into `max_length`.
        left_out: pairs of all splits counted whose prompt alone fills it.
        train_tokens: of prompts and both answers; a pair's prompt counts once where its answers share it.
        test_pairs, test_tokens: the same of the test split, by version digest.
        longest: most tokens of one pair.
        flops_per_s: matrix products at the plan's precision and thread count.
        no_room: of a round on fresh answers, training prompts that leave no room for one, and are not answered.
    """

    train_pairs: int
    left_out: int
    train_tokens: int
    test_pairs: dict[str, int]
    test_tokens: dict[str, int]
    longest: int
    flops_per_s: float
    no_room: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A round with every name resolved. Its digest is the round's identity.

    Attributes:
        number: position of the round in its lineage, from 1.
        history: versions of the lineage's earlier rounds, oldest first.
        base: policy 0 of the lineage.
        lineage: the base and what came of it, the parent last.
        start_from: whose weights training starts from.
        update: True if the version replaces the one before it, or the digest of the one it replaces.
        judged: what the gate judges, the child, or its weights folded into the base and rounded.
        reward_models: that rewards are named after, by digest.
    """

    number: int
    parent: PolicyRef
    base: PolicyRef
    version: VersionRef
    anchors: tuple[Anchor, ...]
    history: tuple[VersionRef, ...]
    update: bool | str
    objective: ObjectiveSettings
    training: TrainingSettings
    numerics: NumericsSettings
    evaluation: EvaluationSettings
    gate: GateSettings
    lineage: tuple[Past, ...] = ()
    start_from: Literal["parent", "base"] = "parent"
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    moving: MovingSettings = field(default_factory=MovingSettings)
    penalties: PenaltySettings = field(default_factory=PenaltySettings)
    merging: MergingSettings = field(default_factory=MergingSettings)
    after: AfterSettings = field(default_factory=AfterSettings)
    online: OnlineSettings = field(default_factory=OnlineSettings)
    judged: Judged = "child"
    reward_models: tuple[PolicyRef, ...] = ()

    @property
    def start(self) -> PolicyRef:
        """The policy that training starts from."""
        return self.base if self.start_from == "base" else self.parent


@dataclass(frozen=True, slots=True)
class Tools:
    """The heavy verbs of a round, in process, on Ray or faked. Each writes into its job's `output` and tells its `Report` how far it is."""

    score: Callable[[ScoreJob, Report], None]
    optimise: Callable[[TrainJob, Report], None]
    evaluate: Callable[[EvaluateJob, Report], None]
    generate: Callable[[GenerateJob, Report], None]
    merge: Callable[[MergeJob, Report], None]
    explain: Callable[[ExplainJob, Report], None]
