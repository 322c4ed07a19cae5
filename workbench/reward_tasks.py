"""Messages about reward models, and the heavy verbs that make and ask them. A reward model is a `PolicyRef` whose folder has a head."""

from collections.abc import Callable
from dataclasses import dataclass

from workbench.config import NumericsSettings, RewardModelSettings, TrainingSettings
from workbench.tasks import PolicyRef, Report, VersionRef


@dataclass(frozen=True, slots=True)
class RewardJob:
    """Training of one reward model, its files written into `output`.

    Attributes:
        base: full weights that the adapter sits on.
        version: trained on its train pairs.
        plan: identity of the training, for its checkpoints.
        scratch: folder for checkpoints.
        report_to: trackers told of training.
    """

    base: PolicyRef
    version: VersionRef
    settings: RewardModelSettings
    plan: str
    scratch: str
    output: str
    report_to: tuple[str, ...] = ()

    @property
    def training(self) -> TrainingSettings:
        """How it is optimised."""
        return self.settings.training

    @property
    def numerics(self) -> NumericsSettings:
        """Precision, threads and device."""
        return self.settings.numerics


@dataclass(frozen=True, slots=True)
class RewardItemsJob:
    """What a reward model says of the test pairs of versions, as `items.jsonl` in `output`."""

    model: PolicyRef
    versions: tuple[VersionRef, ...]
    numerics: NumericsSettings
    output: str


@dataclass(frozen=True, slots=True)
class RewardTools:
    """The heavy verbs, in this process or on Ray."""

    train: Callable[[RewardJob, Report], None]
    items: Callable[[RewardItemsJob, Report], None]
