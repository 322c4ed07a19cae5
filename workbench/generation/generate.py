"""Answers of one policy to a file of prompts."""

from pathlib import Path

from workbench.completions import Answered, read_prompts, write_answered
from workbench.errors import StopRequested
from workbench.models.load import family_of
from workbench.models.numerics import apply_numerics
from workbench.models.sampling import Sampling, sample
from workbench.tasks import GenerateJob, Progress, Report


def generate(job: GenerateJob, report: Report) -> None:
    """Write `completions.jsonl`: one line per prompt with its `count` answers, in the order of the prompts."""
    prompts = read_prompts(Path(job.prompts))
    repeated = [p.prompt for p in prompts for _ in range(job.count)]
    sampling = Sampling(job.max_new_tokens, job.temperature, job.top_p, job.batch_size, job.seed)

    def tell(done: int) -> None:
        if report(Progress("generate", done, len(repeated), {})):
            raise StopRequested("generation was asked to stop; run it again to start over")

    family = family_of(job.policy, job.numerics)
    with apply_numerics(job.numerics), family.using(job.policy) as model:
        answers = sample(model, family.tokenizer, repeated, sampling, layout=family.layout, progress=tell)
    shares = [answers[i * job.count : (i + 1) * job.count] for i in range(len(prompts))]
    write_answered(
        Path(job.output),
        (
            Answered(asked.prompt, asked.slices, tuple(a.text for a in share), tuple(a.finished for a in share))
            for asked, share in zip(prompts, shares, strict=True)
        ),
    )
