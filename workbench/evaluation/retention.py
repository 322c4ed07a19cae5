"""Held-out preferences and single answers of every version, from cached scores."""

from collections.abc import Iterator

from preference_data.versions import Version
from workbench.models.score_table import PairScore
from workbench.tasks import Item


def retention(version: Version, scores: dict[str, PairScore]) -> Iterator[Item]:
    """Margin of every test pair under one policy.

    `margin` is log p(chosen) - log p(rejected) in nats; `margin_per_token` divides each side by its length first;
    `logp_chosen` tells whether the chosen answer itself lost probability. Relative to base is a difference of two
    policies' rows and so is not stored.
    """
    for pair in version.pairs("test"):
        score = scores.get(pair.key)
        if score is None:
            continue
        per_token = score.chosen / score.chosen_tokens - score.rejected / score.rejected_tokens
        numbers = {"margin": score.margin, "margin_per_token": per_token, "logp_chosen": score.chosen}
        for metric, value in numbers.items():
            yield Item(
                suite=f"retention/{version.digest}",
                item=pair.key,
                metric=metric,
                value=value,
                group=pair.prompt.key,
                slices={**pair.slices, "answer": answer_slice(pair.chosen)},
                detail={},
            )


def singles(version: Version, scores: dict[str, PairScore]) -> Iterator[Item]:
    """Log-prob of every single test answer under one policy, nats: `logp_good` of a good one, `logp_bad` of a bad one.

    What tells the two apart is its difference from the base's (`drift.singles`).
    """
    for one in version.singles("test"):
        if score := scores.get(one.key):
            metric = "logp_good" if one.good else "logp_bad"
            yield Item(f"singles/{version.digest}", one.key, metric, score.chosen, one.prompt.key, dict(one.slices), {})


SHORT_ANSWER = 12


def answer_slice(answer: str) -> str:
    """The answer itself where it is as short as Yes or No: one shift of such a prior moves every task at once."""
    text = answer.strip()
    return text if len(text) <= SHORT_ANSWER else "long"
