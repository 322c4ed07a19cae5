"""One answer of one policy, in pieces as they are written."""

from collections.abc import Iterator

from workbench.models.load import family_of
from workbench.models.numerics import apply_numerics
from workbench.models.sampling import Sampling, stream
from workbench.speaking import SpeakJob


def speak(job: SpeakJob) -> Iterator[str]:
    """Stream the answer.

    Raises:
        PolicyError: the policy's files are missing or damaged.
    """
    sampling = Sampling(job.max_new_tokens, job.temperature, job.top_p, batch_size=1, seed=job.seed)
    family = family_of(job.policy, job.numerics)
    with apply_numerics(job.numerics), family.using(job.policy) as model:
        yield from stream(model, family.tokenizer, job.prompt, sampling, layout=family.layout)
