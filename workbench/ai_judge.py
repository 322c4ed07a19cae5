"""A language model as judge: both orders, a tie where they disagree, and the verdict of a reward as a receipt.

The receipt, a small model's answer with its confidence inside the prompt, is SuperContext's (Yang et al., arXiv 2312.15918).
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from preference_data.records import Comparison, Completion, Imported, Judgement, Pairwise, Prompt, Verdict, now
from workbench.config import AI, GuardSettings
from workbench.errors import JudgeError
from workbench.posting import UnansweredError, asked
from workbench.rewards import Reward, gaps

Ask = Callable[[Sequence[Prompt]], Sequence[str]]
"""Answers some prompts, in their order."""
MOST_NONSENSE = 0.5
"""Share of answers without a verdict beyond which a judge is no judge."""
_VERDICT = re.compile(r"\W*(?:answer\W+)?(A|B|tie)\W*", re.IGNORECASE)
QUESTION = """{guideline}

Question:
{question}

Answer A:
{first}

Answer B:
{second}
{receipt}
Which answer is better? Reply with A, B or tie, and nothing else."""


class Receipt(NamedTuple):
    """What a reward said before the judge did: the better answer, 0 or 1, and how sure it is, in [0.5, 1]."""

    better: int
    confidence: float


def ai_judge(
    name: str, ask: Ask, *, guideline: str, receipts: Reward | None = None
) -> Callable[[Sequence[Comparison]], list[Judgement]]:
    """A judge of two answers.

    Args:
        name: handle its judgements are given under; marks them as a machine's for ever.
        ask: the model.
        guideline: what it judges by.
        receipts: a reward whose verdict goes into the prompt.
    """

    def judged(comparisons: Sequence[Comparison]) -> list[Judgement]:
        given = _receipts(receipts, comparisons) if receipts else [None] * len(comparisons)
        prompts = [
            Prompt.of(_question(c, order, guideline, receipt))
            for c, receipt in zip(comparisons, given, strict=True)
            for order in ((0, 1), (1, 0))
        ]
        answers = list(ask(prompts))
        found = [_first_or_second(text, order=k % 2) for k, text in enumerate(answers)]
        nonsense = sum(each is None for each in found)
        if nonsense > MOST_NONSENSE * len(found):
            odd = next(text for text, each in zip(answers, found, strict=True) if each is None)
            raise JudgeError(
                f"judge {name}: {nonsense} of {len(found)} answers name neither A, B nor tie, such as {odd[:80]!r}; choose a model "
                "that follows instructions, or another judge"
            )
        moment = now()
        return [
            _judgement(c, (found[2 * k], found[2 * k + 1]), receipt, annotator=name, at=moment)
            for k, (c, receipt) in enumerate(zip(comparisons, given, strict=True))
        ]

    return judged


def _question(comparison: Comparison, order: tuple[int, int], guideline: str, receipt: Receipt | None) -> str:
    texts = [completion.text for completion in comparison.completions]
    said = ""
    if receipt:
        letter = "AB"[order.index(receipt.better)]
        said = f"\nA smaller model, which may be wrong, prefers {letter} with confidence {receipt.confidence:.2f}.\n"
    return QUESTION.format(
        guideline=guideline or "Judge which answer helps more.", question=_asked(comparison.prompt),
        first=texts[order[0]], second=texts[order[1]], receipt=said,
    ).strip()  # fmt: skip


def _asked(prompt: Prompt) -> str:
    """What was asked: the whole conversation, each turn with who said it where there are several."""
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


def _first_or_second(text: str, *, order: int) -> Verdict | None:
    """What an answer says of the comparison, whose answers stood in the other order where `order` is 1."""
    lines = text.strip().splitlines()
    found = _VERDICT.fullmatch(lines[0]) if lines else None
    if found is None:
        return None
    word = found.group(1).lower()
    if word == "tie":
        return Verdict.TIE
    return Verdict.FIRST if (word == "a") == (order == 0) else Verdict.SECOND


def _judgement(
    comparison: Comparison, said: tuple[Verdict | None, Verdict | None], receipt: Receipt | None, **given: Any
) -> Judgement:
    """Of both orders: a verdict where they agree, a tie where they do not."""
    agreed = said[0] if said[0] == said[1] and said[0] in {Verdict.FIRST, Verdict.SECOND} else None
    extra: dict[str, Any] = {"orders": [each.value if each else "none" for each in said]}
    if receipt:
        preferred = (Verdict.FIRST, Verdict.SECOND)[receipt.better]
        extra["receipt"] = {"verdict": preferred.value, "confidence": round(receipt.confidence, 4)}
        extra["overridden"] = agreed is not None and agreed != preferred
    return Judgement(
        comparison=comparison.key, opinion=Pairwise(agreed or Verdict.TIE, 1 if agreed else None), extra=extra, **given
    )


def _receipts(reward: Reward, comparisons: Sequence[Comparison]) -> list[Receipt | None]:
    """What a reward says; nothing where both answers are worth the same."""
    return [
        Receipt(int(gap < 0), 1 / (1 + math.exp(-min(abs(gap), 700.0)))) if gap else None
        for gap in gaps(reward, comparisons)
    ]


def judge_behind(
    name: str, *, guideline: str, receipts: Reward | None = None, timeout_s: float = 60.0
) -> Callable[[Sequence[Comparison]], list[Judgement]]:
    """The judge that settings call `ai:URL#MODEL`."""
    address, _, model = name.removeprefix(AI).partition("#")
    return ai_judge(name, endpoint(address, model, timeout_s=timeout_s), guideline=guideline, receipts=receipts)


def require_judge(guard: GuardSettings | None) -> None:
    """Ask an AI judge once, so that a round it guards is not begun without it.

    Raises:
        JudgeError: nobody answers, or what comes back is no verdict.
    """
    if guard and guard.by.startswith(AI):
        right, wrong = (Completion(text, Imported("test")) for text in ("4", "5"))
        judge = judge_behind(guard.by, guideline=guard.guideline, timeout_s=guard.timeout_s)
        judge([Comparison(Prompt.of("What is 2 + 2?"), (right, wrong), "test")])


def endpoint(address: str, model: str, *, timeout_s: float = 60.0, sleep: Callable[[float], None] = time.sleep) -> Ask:
    """A model behind an OpenAI-compatible address, such as `http://127.0.0.1:8000/v1`. Texts are sent there.

    Raises:
        JudgeError: nobody answers, three times; or no completion comes back.
    """

    def ask(prompts: Sequence[Prompt]) -> list[str]:
        return [_asked(prompt) for prompt in prompts]

    def _asked(prompt: Prompt) -> str:
        body = {"model": model, "temperature": 0, "max_tokens": 8, "messages": [m._asdict() for m in prompt.messages]}
        try:
            found = asked(f"{address.rstrip('/')}/chat/completions", body, timeout_s=timeout_s, sleep=sleep)
            return str(found["choices"][0]["message"]["content"])
        except UnansweredError as error:
            raise JudgeError(
                f"judge {address}: {error}; judgements given before are kept: start the server, then run the same again"
            ) from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise JudgeError(f"judge {address}: no chat completion came back: {error!r}") from error

    return ask
