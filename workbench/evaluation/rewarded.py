"""What a reward model says of held-out pairs."""

from collections.abc import Iterator
from pathlib import Path

from preference_data.versions import load_version
from workbench.evaluation.retention import answer_slice
from workbench.items import write_items
from workbench.models.reward_model import RewardModel
from workbench.models.tokens import encode_pair
from workbench.reward_tasks import RewardItemsJob
from workbench.tasks import Item, Progress, Report


def reward_items(job: RewardItemsJob, report: Report) -> None:
    """Write how far ahead the chosen answer is, in units of reward, for every test pair of some versions."""
    model = RewardModel(job.model, job.numerics)
    found: list[Item] = []
    for done, version in enumerate(job.versions, start=1):
        found += _of_version(model, Path(version.path))
        report(Progress("rewards", done, len(job.versions), {}))
    write_items(Path(job.output), found)


def _of_version(model: RewardModel, path: Path) -> Iterator[Item]:
    version = load_version(path)
    pairs = [
        (p, e) for p in version.pairs("test") if (e := encode_pair(model.tokenizer, p, max_length=model.max_length))
    ]
    rewards = model([side for _, encoded in pairs for side in encoded])
    for k, (pair, _) in enumerate(pairs):
        slices = {**pair.slices, "answer": answer_slice(pair.chosen)}
        ahead = rewards[2 * k] - rewards[2 * k + 1]
        yield Item(f"reward/{version.digest}", pair.key, "margin", ahead, pair.prompt.key, slices, {})
