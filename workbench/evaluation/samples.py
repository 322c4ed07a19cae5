"""What a policy writes: length, repetition, refusal, compliance, and how far it moved, all on its own samples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch

from preference_data.records import Pair, Prompt, Single
from preference_data.samples import refusal_prompts
from preference_data.simulate import GUIDELINES, asked_in
from preference_data.versions import Version
from workbench.evaluation.context import Context
from workbench.evaluation.refusals import is_refusal
from workbench.maths import kl_to_each
from workbench.models.forward import CompletionStates, Rows, completion_states
from workbench.models.sampling import Answer, Sampling, sample
from workbench.models.tokens import leaves_room
from workbench.tasks import Item, PolicyRef

KL_BATCH, KL_TOKENS = 32, 2048
"""Most answers and tokens of a batch, for models whose logits are held: those of two policies."""


def samples(context: Context, version: Version, against: dict[str, PolicyRef]) -> Iterator[Item]:
    """Answers to test prompts of one version.

    Per answer: `tokens`, `finished`, `refused`, `compliance/<guideline>`, and for every policy in `against`
    `kl/<digest>`: KL(policy || other) summed over the answer's positions, in nats, exact over the vocabulary, and
    `kl_back/<digest>`: KL(other || policy) at the same positions. KL in nats per token is the quotient of the sums of
    `kl/<digest>` and `tokens`. The text is kept in `detail`.
    """
    pairs = _prompts(version, context.settings.samples, _leaves_room(context))
    answers = _answers(context, [p.prompt for p in pairs])
    nats = _kl(context, answers, against)
    for k, (pair, answer) in enumerate(zip(pairs, answers, strict=True)):
        numbers = {
            "tokens": float(len(answer.encoded.completion)),
            "finished": float(answer.finished),
            "refused": float(is_refusal(answer.text)),
        }
        question = asked_in(pair.prompt)
        numbers |= {f"compliance/{g}": GUIDELINES[g].score(question, answer.text) for g in context.settings.guidelines}
        numbers |= {metric: values[k] for metric, values in nats.items()}
        for metric, value in numbers.items():
            detail = {"prompt": pair.prompt.text, "answer": answer.text} if metric == "tokens" else {}
            key = pair.prompt.key
            yield Item(f"samples/{version.digest}", key, metric, value, key, dict(pair.slices), detail)


def refusal(context: Context) -> Iterator[Item]:
    """`refused` is 1 where the answer to a probe refuses; slices tell whether it should."""
    leaves_room = _leaves_room(context)
    probes = [probe for probe in refusal_prompts() if leaves_room(Prompt.of(probe.text))]
    answers = _answers(context, [Prompt.of(p.text) for p in probes])
    for probe, answer in zip(probes, answers, strict=True):
        value = float(is_refusal(answer.text))
        detail = {"prompt": probe.text, "answer": answer.text}
        yield Item("refusal", probe.key, "refused", value, probe.key, {"label": probe.label}, detail)


def _prompts(version: Version, count: int, leaves_room: Callable[[Prompt], bool]) -> list[Pair | Single]:
    """The first test pairs or single answers of distinct prompts, in the order of the prompts' ids: the same for every policy."""
    by_prompt = {one.prompt.key: one for one in (*version.singles("test"), *version.pairs("test"))}
    in_order = (by_prompt[key] for key in sorted(by_prompt))
    return list(islice((pair for pair in in_order if leaves_room(pair.prompt)), count))


def _leaves_room(context: Context) -> Callable[[Prompt], bool]:
    """Whether the base has positions for a prompt and an answer to it; the same for every policy."""
    with context.family.using(context.policy) as model:
        return leaves_room(context.family.tokenizer, model.config, context.settings.max_new_tokens)


def _answers(context: Context, prompts: Sequence[Prompt]) -> list[Answer]:
    if not prompts:
        return []
    s = context.settings
    sampling = Sampling(s.max_new_tokens, s.temperature, 1.0, s.batch_size, s.seed)
    with context.family.using(context.policy) as model:
        return sample(
            model,
            context.family.tokenizer,
            prompts,
            sampling,
            layout=context.family.layout,
            progress=lambda n: context.tell(n, len(prompts)),
        )


def _kl(context: Context, answers: Sequence[Answer], against: Mapping[str, PolicyRef]) -> dict[str, list[float]]:
    """KL to some policies, both ways, by metric; the policy itself reads its answers once for all of them."""
    examples = [a.encoded for a in answers]
    found = {f"{way}/{other}": [0.0] * len(examples) for other in against for way in ("kl", "kl_back")}
    if not against:
        return found
    for batch in context.family.batches(examples, size=KL_BATCH, tokens=KL_TOKENS):
        rows = context.family.collate([examples[k] for k in batch])
        mine, *theirs = (_states(context, policy, rows) for policy in (context.policy, *against.values()))
        with torch.inference_mode():
            chunks = [kl_to_each(mine.logits(c), [each.logits(c) for each in theirs]) for c in mine.chunks()]
        for other, per_chunk in zip(against, zip(*chunks, strict=True), strict=True):
            for way, parts in zip(("kl", "kl_back"), zip(*per_chunk, strict=True), strict=True):
                nats = torch.zeros(len(batch)).index_add(0, rows.example, torch.cat(parts).cpu())
                for k, value in zip(batch, nats.tolist(), strict=True):
                    found[f"{way}/{other}"][k] = value
    return found


def _states(context: Context, policy: PolicyRef, rows: Rows) -> CompletionStates:
    with context.family.using(policy) as model:
        return completion_states(model, rows)
