"""What people said, as frozen records.

A record never changes, so its key is computed once. Identity is content: two records with the same content have the same id on every machine,
which makes imports idempotent. Times are UTC. Nothing here knows how records are stored or trained on.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple

from preference_data.errors import RowRefused

ROLES = ("system", "user", "assistant", "tool")
Split = Literal["train", "select", "test"]
SPLITS: tuple[Split, ...] = ("train", "select", "test")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no escaping: one text per value, on every machine.

    Raises:
        ValueError: the value holds a NaN or an infinity, which JSON has no word for.
    """
    return _CANONICAL.encode(value)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value. Lone surrogates are kept, so any Python text has a digest."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """The conversation up to the answer asked for.

    Attributes:
        messages: at least one turn; the last is not the assistant's. Roles are those of `ROLES`.
    """

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be answered.

        Raises:
            RowRefused: no turns, an unknown role, or the assistant has the last word.
        """
        if not self.messages:
            raise RowRefused("prompt: no messages; expected at least one turn; drop the row or give it a prompt")
        for message in self.messages:
            if message.role not in ROLES:
                raise RowRefused(f"prompt: unknown role {message.role!r}; expected one of {', '.join(ROLES)}")
        if self.messages[-1].role == "assistant":
            raise RowRefused("prompt: ends with an assistant turn; expected a user turn to be answered")

    @staticmethod
    def of(text: str) -> "Prompt":
        """A prompt of a single user turn."""
        return Prompt((Message("user", text),))

    @cached_property
    def key(self) -> str:
        """Content id of the conversation."""
        return digest([list(m) for m in self.messages])

    @property
    def text(self) -> str:
        """The turns as plain text, for display and for near-duplicate search."""
        return "\n\n".join(f"{m.role}: {m.content}" for m in self.messages)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A completion drawn from a policy. `temperature` 0 means greedy."""

    policy: str
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Imported:
    """A completion read from a file; `policy` is the writer's name as the file gives it, empty where it does not."""

    source: str
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A completion written or edited by a person."""

    annotator: str


Origin = Sampled | Imported | Written


@dataclass(frozen=True, slots=True)
class Completion:
    """One assistant answer and where it came from."""

    text: str
    origin: Origin

    def __post_init__(self) -> None:
        """Refuse an answer that says nothing.

        Raises:
            RowRefused: the text is empty or white space.
        """
        if not self.text.strip():
            raise RowRefused("answer is empty; expected text; drop the row or complete the answer")


@dataclass(frozen=True)
class Comparison:
    """A prompt with completions to be judged: one for a thumb, two for a pairwise judgement, more for a ranking.

    Attributes:
        slices: what the item belongs to (`domain`, `language`, …), used to cut every later number.
        source: file, project or policy run it came from.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    source: str
    slices: Mapping[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def key(self) -> str:
        """Content id: prompt, answers in order, source and slices."""
        texts = [c.text for c in self.completions]
        return digest([self.prompt.key, texts, self.source, dict(self.slices)])


class Verdict(StrEnum):
    """What a pairwise judgement says. TIE: equally good. NEITHER: both bad. SKIP: could not judge."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    NEITHER = "neither"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Pairwise:
    """One of two answers is better. `strength` 1 slightly, 2 clearly, 3 much; None where nobody said."""

    verdict: Verdict
    strength: int | None = None

    def __post_init__(self) -> None:
        """Refuse a strength outside 1-3.

        Raises:
            RowRefused: the strength is not 1, 2, 3 or None.
        """
        if self.strength not in {None, 1, 2, 3}:
            raise RowRefused(f"strength: got {self.strength!r}; expected 1 (slightly), 2 or 3 (much), or nothing")


@dataclass(frozen=True, slots=True)
class Thumb:
    """A single answer is good or bad."""

    up: bool


@dataclass(frozen=True, slots=True)
class Rating:
    """Scores of each answer on named dimensions, in the order of the comparison's completions."""

    scores: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Indices of the completions from best to worst; those in one inner tuple are tied."""

    order: tuple[tuple[int, ...], ...]


Opinion = Pairwise | Thumb | Rating | Ranking


@dataclass(frozen=True)
class Judgement:
    """What one annotator said about one comparison. A change of mind is a new judgement that supersedes.

    Attributes:
        comparison: key of the comparison judged.
        annotator: the annotator's handle; the store keeps identity apart.
        shown_order: indices of the completions as they stood on the screen, left to right; empty for imports.
        guideline: version of the guideline in force, empty where there was none.
        edit: the better answer as the annotator rewrote it.
        supersedes: key of the judgement this one replaces.
        at: when it was given, UTC.
        extra: further facts of the source that no other field can carry, kept word for word.
    """

    comparison: str
    annotator: str
    opinion: Opinion
    at: datetime
    rationale: str = ""
    edit: str = ""
    flags: tuple[str, ...] = ()
    shown_order: tuple[int, ...] = ()
    guideline: str = ""
    supersedes: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Refuse local times.

        Raises:
            ValueError: `at` has no time zone or another than UTC.
        """
        if self.at.tzinfo is not UTC:
            raise ValueError(f"at: got {self.at!r}; expected a time in UTC, such as datetime.now(UTC)")

    @cached_property
    def key(self) -> str:
        """Content id and idempotency key: everything said, but not when it was read."""
        return digest(
            [
                self.comparison,
                self.annotator,
                opinion_as_json(self.opinion),
                self.rationale,
                self.edit,
                list(self.flags),
                list(self.shown_order),
                self.guideline,
                self.supersedes,
                dict(self.extra),
            ]
        )


def opinion_as_json(opinion: Opinion) -> dict[str, Any]:
    """An opinion as plain JSON values, its kind under `kind`."""
    match opinion:
        case Pairwise(verdict, strength):
            return {"kind": "pairwise", "verdict": verdict.value, "strength": strength}
        case Thumb(up):
            return {"kind": "thumb", "up": up}
        case Rating(scores):
            return {"kind": "rating", "scores": [dict(s) for s in scores]}
        case Ranking(order):
            return {"kind": "ranking", "order": [list(tied) for tied in order]}


def opinion_from_json(value: Mapping[str, Any]) -> Opinion:
    """The inverse of `opinion_as_json`.

    Raises:
        RowRefused: the kind is unknown.
    """
    match value["kind"]:
        case "pairwise":
            return Pairwise(Verdict(value["verdict"]), value["strength"])
        case "thumb":
            return Thumb(value["up"])
        case "rating":
            return Rating(tuple(dict(s) for s in value["scores"]))
        case "ranking":
            return Ranking(tuple(tuple(tied) for tied in value["order"]))
        case kind:
            raise RowRefused(f"opinion: unknown kind {kind!r}; expected pairwise, thumb, rating or ranking")


def origin_as_json(origin: Origin) -> dict[str, Any]:
    """Where a completion came from as plain JSON values, its kind under `kind`."""
    match origin:
        case Sampled():
            return {
                "kind": "sampled",
                "policy": origin.policy,
                "temperature": origin.temperature,
                "top_p": origin.top_p,
                "max_new_tokens": origin.max_new_tokens,
                "seed": origin.seed,
            }
        case Imported():
            return {"kind": "imported", "source": origin.source, "policy": origin.policy}
        case Written():
            return {"kind": "written", "annotator": origin.annotator}


def origin_from_json(value: Mapping[str, Any]) -> Origin:
    """The inverse of `origin_as_json`.

    Raises:
        RowRefused: the kind is unknown.
    """
    fields = {k: v for k, v in value.items() if k != "kind"}
    match value["kind"]:
        case "sampled":
            return Sampled(**fields)
        case "imported":
            return Imported(**fields)
        case "written":
            return Written(**fields)
        case kind:
            raise RowRefused(f"origin: unknown kind {kind!r}; expected sampled, imported or written")


@dataclass(frozen=True)
class Pair:
    """What training reads: one prompt, the better and the worse answer, and how much the pair counts.

    Attributes:
        weight: multiplies the pair's loss; 1 is one clear judgement.
        strength: mean strength of the judgements behind it (1-3), None where nobody gave one.
        judgements: keys of the judgements behind it, sorted.
        slices: source, domain, language, length band, annotator group, …
        split: where the global rule puts the prompt's near-duplicate cluster.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    weight: float
    strength: float | None
    judgements: tuple[str, ...]
    slices: Mapping[str, str]
    split: Split

    @cached_property
    def key(self) -> str:
        """Content id of prompt, chosen and rejected."""
        return digest([self.prompt.key, self.chosen, self.rejected])


@dataclass(frozen=True)
class Single:
    """One answer that is good or bad by itself: nobody who said so weighed it against another.

    Attributes:
        good: or bad.
        weight: multiplies the loss; 1 where all who spoke of it agree.
        judgements, slices, split: as of a `Pair`; who said it is known by the judgements alone, so that a person can be erased.
    """

    prompt: Prompt
    completion: str
    good: bool
    weight: float
    judgements: tuple[str, ...]
    slices: Mapping[str, str]
    split: Split

    @cached_property
    def key(self) -> str:
        """Content id of prompt and answer."""
        return digest([self.prompt.key, self.completion])

    @property
    def twice(self) -> Pair:
        """The answer on both sides of a pair: for what reads pairs and looks at either side."""
        text = self.completion
        return Pair(self.prompt, text, text, self.weight, None, self.judgements, self.slices, self.split)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
