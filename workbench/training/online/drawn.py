"""What objectives of fresh answers are computed from."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Drawn(NamedTuple):
    """Answers of the policy in training to some prompts, in one forward pass.

    Attributes:
        logps: log-prob of each answer, nats, summed over its tokens, with gradient, shape (prompts, samples).
        rewards: of each answer, shape (prompts, samples); 0 for prompts without reward.
        beta: weight of the KL to the anchors, reward per nat, shape (prompts, 1).
        rewarded: prompts that have a reward, boolean, shape (prompts, 1).
        reference: log-prob of each answer under the geometric reference, nats, shape (prompts, samples).
        kl: KL to the anchors, weighted, exact over the vocabulary at each token and summed over an answer's, nats, with
            gradient, shape (prompts, samples).
    """

    logps: Tensor
    rewards: Tensor
    beta: Tensor
    rewarded: Tensor
    reference: Callable[[], Tensor]
    kl: Callable[[], Tensor]


class Loss(NamedTuple):
    """What an objective makes of it.

    Attributes:
        per_sample: with gradient, shape (prompts, samples); its mean is the loss.
        kl: to the anchors as the objective measures it, nats per answer, without gradient, shape (prompts, samples).
    """

    per_sample: Tensor
    kl: Tensor
