"""One answer of one policy, in pieces as it is written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from preference_data.records import Prompt
from workbench.config import NumericsSettings
from workbench.tasks import PolicyRef


@dataclass(frozen=True, slots=True)
class SpeakJob:
    """One answer of one policy, to be streamed.

    Attributes:
        prompt: the turns so far.
    """

    policy: PolicyRef
    prompt: Prompt
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    numerics: NumericsSettings


Speak = Callable[[SpeakJob], Iterator[str]]
"""Answers a job, in pieces as they are written."""
