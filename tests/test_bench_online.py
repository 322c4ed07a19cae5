"""The bench of fresh answers: its toy, and the reward it lets be exploited."""

import pytest

from preference_data.records import Prompt
from workbench.bench.online import PARTS, WINDOW, _relevance, _rise
from workbench.config import RewardSettings
from workbench.rewards import Said, reward_named


def test_the_toy_has_a_figure_for_every_objective_with_a_reward():
    figures = list(PARTS["toy"](lambda _: None, quick=True))
    assert [f.name.split(":")[0] for f in figures] == ["grpo", "rloo", "dpo"]
    assert all(f.value is not None and f.target == 0.02 for f in figures)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_copying_the_question_earns_the_exploitable_reward():
    prompt = Prompt.of("Where does yellow butter come from?")
    texts = ("Where does yellow butter come from", "Cows give milk that people churn", "  ")
    with _relevance() as address:
        copied, own, nothing = reward_named(RewardSettings(by=address))(
            [Said(prompt, t, {}, finished=True) for t in texts]
        )
    assert copied == 20.0  # all hundred of a hundred words, in fifths
    assert (own, nothing) == (0.0, 0.0)


def test_the_rise_compares_the_last_steps_with_the_first():
    found = _rise([0.0] * WINDOW + [5.0] * 3 + [1.0] * WINDOW)
    assert (found.value, found.n) == (1.0, WINDOW)
