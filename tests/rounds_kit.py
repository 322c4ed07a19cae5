"""A small world for tests of rounds: a tiny model, made-up preferences, settings that finish in seconds."""

import json
import random
from pathlib import Path

from preference_data.freeze import FreezeRule
from preference_data.records import Comparison, Completion, Imported, Judgement, Pairwise, Prompt, Verdict, now
from preference_data.store import Entry
from workbench.config import RoundSettings
from workbench.workspace import Workspace

WORDS = ["tea", "moon", "river", "stone", "paper", "cloud", "bread", "window", "garden", "music", "train", "letter",
         "silver", "winter", "market", "bridge", "forest", "candle", "ocean", "mirror"]  # fmt: skip

SETTINGS = RoundSettings.model_validate(
    {
        "method": "plain",
        "training": {"max_length": 128, "learning_rate": 5e-3, "checkpoint_every": 2, "rank": 4, "alpha": 8},
        "evaluation": {"samples": 6, "max_new_tokens": 6, "suites": ["refusal"]},
        "gate": {"min_gain": -1, "max_retention_drop": 1, "max_tax": 1, "max_kl_parent": 50, "max_kl_base": 50},
    }
)


def entries(count: int, *, source: str, better: str, worse: str, seed: int = 0) -> list[Entry]:
    """Comparisons of an answer that starts with `better` and one that starts with `worse`, judged by one person."""
    rng = random.Random(seed)
    made: list[Entry] = []
    for _ in range(count):
        prompt = Prompt.of("tell me about " + " ".join(rng.sample(WORDS, 4)))
        answers = tuple(Completion(f"{start} {rng.choice(WORDS)}", Imported(source)) for start in (better, worse))
        comparison = Comparison(prompt, answers, source, {"domain": source})
        made.append(Entry(comparison, (Judgement(comparison.key, "ann", Pairwise(Verdict.FIRST), now()),)))
    return made


def two_versions(root: Path, model: Path) -> Workspace:
    """A workspace with two dataset versions, `polite` and `short`, and the base as champion."""
    ws = Workspace.init(root, base=model)
    ws.store.add(entries(60, source="polite", better="yes please", worse="no", seed=1))
    ws.store.add(entries(60, source="short", better="ok", worse="well then", seed=2))
    for name in ("polite", "short"):
        ws.freeze(name=name, rule=FreezeRule(sources=(name,)))
    return ws


def settings(**changes: object) -> RoundSettings:
    """`SETTINGS` with changes, nested ones given as dictionaries."""
    values = SETTINGS.model_dump(exclude_unset=True)
    for name, value in changes.items():
        values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    return RoundSettings.model_validate(values)


def persona_files(folder):
    """Two files of made-up personas, `one.jsonl` and `two.jsonl`, which want the opposite of each other."""
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]
    for name, liked in (("one", 0), ("two", 1)):
        rows = []
        for i, word in enumerate(words[:160]):
            asked = " ".join(words[(i * 7 + k * 13 + liked * 59) % len(words)] for k in range(6))
            said = (" Yes", " No") if (i % 2) == liked else (" No", " Yes")
            rows.append({"question": f"{word} {asked}?", "statement": asked, "label_confidence": 1.0,
                         "answer_matching_behavior": said[0], "answer_not_matching_behavior": said[1]})  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
