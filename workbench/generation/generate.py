"""Answers of one policy to a file of prompts."""

from pathlib import Path

from workbench.completions import Answered, read_prompts, write_answered
from workbench.errors import StopRequested
from workbench.models.load import config_of, family_of, load_tokenizer
from workbench.models.numerics import apply_numerics
from workbench.models.sampling import Answer, Sampling, sample
from workbench.models.tokens import leaves_room
from workbench.tasks import GenerateJob, Progress, Report


def generate(job: GenerateJob, report: Report) -> None:
    """Write `completions.jsonl`: one line per prompt with its `count` answers, in the order of the prompts.

    Prompts that leave no room for an answer in what the base can read are left out, and told of.
    """
    given = read_prompts(Path(job.prompts))
    has_room = leaves_room(load_tokenizer(job.policy.base_path), config_of(job.policy.base_path), job.max_new_tokens)
    prompts = [each for each in given if has_room(each.prompt)]
    if left_out := len(given) - len(prompts):
        report(Progress("generate", 0, len(prompts) * job.count, {"prompts_left_out": left_out}))
    repeated = [p.prompt for p in prompts for _ in range(job.count)]
    sampling = Sampling(job.max_new_tokens, job.temperature, job.top_p, job.batch_size, job.seed)

    def tell(done: int) -> None:
        if report(Progress("generate", done, len(repeated), {})):
            raise StopRequested("generation was asked to stop; run it again to start over")

    answers: list[Answer] = []
    if repeated:
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
