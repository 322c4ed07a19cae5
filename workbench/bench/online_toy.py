"""A policy that can be enumerated: a table of one-token answers, two anchors, and where objectives take it."""

import torch

from workbench.config import OnlineSettings
from workbench.training.online import OBJECTIVES, Drawn


class Table:
    """A policy over a few one-token answers to a few prompts, two anchors with weights, and rewards.

    Args:
        answers: per prompt.
        prompts: how many.
        seed: of anchors and rewards.
    """

    def __init__(self, answers: int = 5, prompts: int = 3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        anchors = [torch.randn(prompts, answers, generator=generator).log_softmax(-1) for _ in range(2)]
        self.mean = 0.7 * anchors[0] + 0.3 * anchors[1]
        self.rewards = torch.randn(prompts, answers, generator=generator)
        self.logits = torch.zeros(prompts, answers, requires_grad=True)

    def draw(self, samples: int, *, beta: float, generator: torch.Generator) -> Drawn:
        """Answers of the policy as it is, with the exact KL."""
        policy = self.logits.log_softmax(-1)
        with torch.no_grad():
            taken = torch.multinomial(policy.exp(), samples, replacement=True, generator=generator)
        kl = (policy.exp() * (policy - self.mean)).sum(-1, keepdim=True).expand(-1, samples)
        prompts = len(self.rewards)
        return Drawn(
            policy.gather(1, taken), self.rewards.gather(1, taken), torch.full((prompts, 1), beta),
            torch.ones(prompts, 1, dtype=torch.bool), lambda: self.mean.gather(1, taken), lambda: kl,
        )  # fmt: skip

    def optimum(self, beta: float) -> torch.Tensor:
        """prod_k pi_k^(w_k) exp(r / beta), normalised, shape (prompts, answers)."""
        return (self.mean + self.rewards / beta).softmax(-1)

    def climb(self, settings: OnlineSettings, *, beta: float, steps: int, samples: int) -> torch.Tensor:
        """The policy after stochastic steps of falling size, shape (prompts, answers)."""
        generator = torch.Generator().manual_seed(1)
        optimizer = torch.optim.Adam([self.logits], lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            drawn = self.draw(samples, beta=beta, generator=generator)
            OBJECTIVES[settings.objective](drawn, settings).per_sample.mean().backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()
            schedule.step()
        return self.logits.detach().softmax(-1)


def total_variation(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest over prompts."""
    return float((first - second).abs().sum(-1).max()) / 2
