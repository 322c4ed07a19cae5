"""Settings of the closed loop: generate, judge, freeze, round, promote, again."""

import re
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from workbench.config.online import RewardSettings
from workbench.config.reward_models import RewardModelSettings
from workbench.config.rounds import GenerateSettings, RoundSettings
from workbench.config.settings import Settings

JUDGES = "people, rule:GUIDELINE, simulated:GUIDELINE, reward:REWARD, or ai:URL#MODEL"
_JUDGE = re.compile(r"people|(rule|simulated|reward|ai):\S.*")


def _listed(turn: Any) -> Any:
    """The judges of a turn, given as a name, as one judge, or as a list."""
    if isinstance(turn, str):
        return [{"by": turn}]
    return turn if isinstance(turn, list | tuple) else [turn]  # pyright: ignore[reportUnknownVariableType]


class JudgeSettings(Settings):
    """Who judges some of the comparisons."""

    by: str
    """`people` (on the page), `rule:GUIDELINE`, `simulated:GUIDELINE`, `reward:` with a reward as in `[round.online]`, or
    `ai:URL#MODEL` (an OpenAI-compatible address)."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Of the comparisons; drawn by their content, so that the same ones go to the same judge."""
    error_rate: float = Field(default=0.0, ge=0, lt=1)
    """Verdicts a simulated annotator turns round."""
    guideline: str = ""
    """ai: what it judges by."""
    receipt: str = ""
    """ai: a reward whose verdict and confidence go into its prompt."""
    trust: float = Field(default=0.6, ge=0, le=1)
    """ai: it may label once it agrees with people on so many comparisons they decided, lower bound; 0 asks for none."""

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        if not _JUDGE.fullmatch(by):
            raise ValueError(f"by = {by!r}: expected {JUDGES}")
        return by

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        for given in (self.by, self.receipt):
            if given.endswith("model:latest"):
                raise ValueError(
                    f"{given!r}: the latest reward model changes while labels keep the name of who gave them; name one, such as "
                    "model:july"
                )
        return self


class ProxySettings(Settings):
    """What labels the comparisons it is sure of, so that people are asked only about the rest."""

    by: str = "model:latest"
    """A reward, as in `[round.online]`. `model:latest` is the newest reward model when a turn begins; a turn before there is
    one asks about everything."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """It is sure where sigma of the difference of rewards is at least this for the better answer."""
    agreeing: bool = True
    """And where the policy, too, finds that answer likelier."""
    control: float = Field(default=0.1, gt=0, lt=1)
    """Share of the comparisons judged as if there were no proxy, drawn by their content: it tells how often the proxy is right."""

    @field_validator("by")
    @classmethod
    def _a_reward(cls, by: str) -> str:
        return RewardSettings(by=by).by


class LoopSettings(Settings):
    """A loop, as a person writes it."""

    name: str = Field(pattern=r"^[\w][\w.-]*$")
    """Of the loop and, with a number, of the versions it makes."""
    prompts: Path
    """File of prompts, as `workbench generate` reads it; each turn takes the next ones, and begins again at the end."""
    turns: int = Field(default=1, ge=1)
    """Rounds until the loop ends by itself."""
    prompts_per_turn: int = Field(default=128, ge=8)
    judges: tuple[tuple[JudgeSettings, ...], ...] = ((JudgeSettings(by="people"),),)
    """Who judges in each turn; the last entry holds for all turns after it. Shares of one entry sum to 1."""
    most_labels: int = Field(default=0, ge=0)
    """Judgements until the loop ends; 0 for no limit."""
    most_hours: float = Field(default=0.0, ge=0)
    """Hours of work until no further turn is begun; 0 for no limit."""
    machines: float = Field(default=1.0, ge=0, le=1)
    """What a machine's judgement weighs against a person's when a turn is frozen."""
    on_rejection: Literal["stop", "go on"] = "stop"
    """After a round whose child the gate refused: stop, or go on from the champion."""
    on_change: Literal["tell", "declare"] = "tell"
    """Where judgements contradict what was taught: say so, or make the round an update of the turn before as well."""
    generate: GenerateSettings = GenerateSettings()
    proxy: ProxySettings | None = None
    """Where given, a proxy labels what it is sure of, and the judges the rest and a random share."""
    reward_model: RewardModelSettings | None = None
    """Where given, a reward model is trained on every turn's version before its round and called NAME-TURN; rewards in
    `[round.online]` may name the newest as `model:latest`. Its version is the loop's to say."""
    round: RoundSettings = RoundSettings()
    """Of every turn; its version and parent are the loop's to say."""

    @model_validator(mode="before")
    @classmethod
    def _one_judge(cls, values: Any) -> Any:
        """`judges = "people"` and `judges = ["rule:a", "rule:b"]` are short for one judge a turn."""
        if not isinstance(values, dict):
            return values
        known = cast("dict[str, Any]", values)
        if "judges" not in known:
            return known
        given = known["judges"]
        turns: list[Any] = [given] if isinstance(given, str) else list(given)
        return {**known, "judges": [_listed(turn) for turn in turns]}

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        if not self.judges or not all(self.judges):
            raise ValueError(f"judges: none given for a turn; expected {JUDGES}")
        for turn in self.judges:
            total = sum(judge.share for judge in turn)
            if abs(total - 1) > 1e-6:
                raise ValueError(f"judges: shares of a turn must sum to 1, got {total:g}")
        return self

    @model_validator(mode="after")
    def _two_answers(self) -> Self:
        if self.generate.count != 2:
            raise ValueError(
                f"generate.count = {self.generate.count}: a loop's judges compare two answers; leave it at 2"
            )
        return self

    @model_validator(mode="after")
    def _loop_says_what_is_trained(self) -> Self:
        for name in ("version", "parent"):
            if name in self.round.model_fields_set:
                raise ValueError(f"round.{name}: the loop chooses it; leave it out")
        return self

    def judges_of(self, turn: int) -> tuple[JudgeSettings, ...]:
        """Who judges in a turn, from 1."""
        return self.judges[min(turn, len(self.judges)) - 1]
