"""Between the queue and the page: what a person may see of a comparison, and what they say of it.

A page knows answers by where they stand, and nothing else of them: no policy, no order of the record, no source.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from preference_data.opinions import as_it_stood
from preference_data.projects import Project
from preference_data.queue import Given, Own, Receipt, Showing
from preference_data.records import opinion_as_json, opinion_from_json
from ui.rendering import rendered

Flag = Literal["pii", "broken", "offensive"]
"""What a person can say is wrong with an item; any flag goes with any judgement."""

TOPIC = "topic"
"""The one slice of a comparison that people are told: others may say where answers come from."""
LONGEST_NOTE = 20_000
LONGEST_EDIT = 400_000
MOST_ANSWERS = 100


class _Opinion(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Pairwise(_Opinion):
    kind: Literal["pairwise"]
    verdict: Literal["first", "second", "tie", "neither", "skip"]
    strength: Literal[1, 2, 3] | None = None


class _Thumb(_Opinion):
    kind: Literal["thumb"]
    up: bool


class _Rating(_Opinion):
    kind: Literal["rating"]
    scores: list[dict[str, float]] = Field(max_length=MOST_ANSWERS)


class _Ranking(_Opinion):
    kind: Literal["ranking"]
    order: list[list[int]] = Field(max_length=MOST_ANSWERS)


class Said(BaseModel):
    """A judgement as the page sends it, about the answers as they stood on the screen."""

    model_config = ConfigDict(extra="forbid")

    lease: int = Field(ge=1)
    opinion: _Pairwise | _Thumb | _Rating | _Ranking = Field(discriminator="kind")
    rationale: str = Field(default="", max_length=LONGEST_NOTE)
    edit: str = Field(default="", max_length=LONGEST_EDIT)
    flags: tuple[Flag, ...] = ()
    seconds: float = Field(default=0.0, ge=0, le=86_400)
    again: bool = False
    """It replaces what was said before."""

    def given(self) -> Given:
        """As the queue takes it."""
        return Given(
            opinion=opinion_from_json(self.opinion.model_dump()),
            rationale=self.rationale,
            edit=self.edit,
            flags=tuple(sorted(set(self.flags))),
            seconds=self.seconds,
            as_shown=True,
        )


def project_facts(project: Project, items: int, still_open: int) -> dict[str, Any]:
    """What people are told of a project."""
    return {
        "name": project.name,
        "mode": project.mode,
        "label": project.label,
        "guideline": rendered(project.guideline),
        "warning": project.settings.warning,
        "dimensions": project.settings.dimensions,
        "scale": project.settings.scale,
        "items": items,
        "done": items - still_open,
    }


def showing_facts(showing: Showing) -> dict[str, Any]:
    """What people see of an item: turns and answers, each as HTML and as plain text, answers in screen order."""
    answers = [showing.comparison.completions[k].text for k in showing.shown_order]
    turns = [{"role": m.role, **_both(m.content)} for m in showing.comparison.prompt.messages]
    return {
        "lease": showing.lease,
        "turns": turns,
        "answers": [_both(text) for text in answers],
        "trial": showing.purpose == "trial",
        "topic": showing.comparison.slices.get(TOPIC, ""),
    }


def own_facts(own: Own) -> dict[str, Any]:
    """What a person said, as they saw it."""
    said = own.judgement
    return {
        **showing_facts(own.showing),
        "said": {
            "opinion": opinion_as_json(as_it_stood(said.opinion, own.showing.shown_order)),
            "rationale": said.rationale,
            "edit": said.edit,
            "flags": [flag for flag in said.flags if flag in get_args(Flag)],
        },
        "at": said.at.isoformat(),
    }


def receipt_facts(receipt: Receipt) -> dict[str, Any]:
    """What became of a judgement."""
    return {"stored": True, "late": receipt.outcome == "late", "right": receipt.right, "why": receipt.why}


def _both(text: str) -> dict[str, str]:
    return {"html": rendered(text), "text": text}
