"""Rounds that learn from fresh answers: where objectives converge to, what a real model earns, whether a guard wakes up."""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from preference_data.freeze import FreezeRule
from preference_data.samples import prompts
from preference_data.simulate import own_words
from workbench.bench.figures import Figure
from workbench.bench.online_toy import Table, total_variation
from workbench.bench.online_workers import workers
from workbench.config import GenerateSettings, NumericsSettings, OnlineSettings, RoundSettings
from workbench.demo import SYSTEM
from workbench.drift.uncertainty import Estimate, mean
from workbench.errors import GuardError
from workbench.models.fetch import default_directory
from workbench.models.rate import fastest
from workbench.rounds.gate import Verdict
from workbench.tasks import Progress
from workbench.workspace import Workspace

Tell = Callable[[str], None]
ANSWERED, FEWER = 300, 60
"""Prompts whose answers make the version that retention is measured on; of a quick run."""
WINDOW = 10
"""Steps at the start and at the end whose rewards are compared."""
THREADS = 2
MINUTES = 15.0
TRAINED = {"learning_rate": 3e-4, "max_length": 256}
ANSWER = {"max_new_tokens": 24, "prompts": 8, "samples": 4, "beta": 0.05}
KL_TARGET = 4.0
"""Nats per answer."""


def toy(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """A policy that can be enumerated, with two anchors."""
    for name in ("grpo", "rloo", "dpo"):
        tell(f"{name} on a table")
        settings = OnlineSettings.model_validate({"objective": name, "rewards": [{"by": "rule:own-words"}]})
        table = Table()
        found = table.climb(settings, beta=0.8, steps=300 if quick else 1500, samples=256)
        yield Figure(
            f"{name}: total variation from the product of anchors times exp(r / beta)",
            total_variation(found, table.optimum(0.8)), 0.02,
            note="5 one-token answers, 3 prompts, anchors 0.7 and 0.3, on-policy, the largest over prompts",
        )  # fmt: skip


def climb(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """GRPO on a verifiable reward."""
    with tempfile.TemporaryDirectory() as folder:
        ws = _workspace(Path(folder), tell, quick=quick)
        began = time.monotonic()
        online = {**ANSWER, "objective": "grpo", "rewards": [{"by": "rule:own-words"}], "kl_target": KL_TARGET,
                  "steps": 2 * WINDOW if quick else 50}  # fmt: skip
        facts, verdict = _round(ws, online, tell)
        minutes = (time.monotonic() - began) / 60
    rise = _rise([each["reward"] for each in facts])
    kl = next(c for c in verdict.criteria if c.name == "kl/base")
    note = f"SmolLM2-135M, own words, {len(facts)} steps of 8 prompts x 4 answers of 24 tokens, {THREADS} threads"
    yield Figure("reward gained, lower 95 % bound, margins of the guideline", rise.low, 0.0, "at least", note)
    yield Figure("reward gained", rise.value, 0.0, "at least", f"the last {WINDOW} steps against the first")
    yield Figure("minutes of the round", minutes, MINUTES, note="scoring and evaluation included")
    high = kl.value.high if kl.value else None
    yield Figure(
        "KL to the base, nats per token, upper 95 % bound", high, 0.5, note="on the child's own answers; its budget"
    )


def guard(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """A reward that is earned by copying the question, and a guard that asks for own words."""
    with tempfile.TemporaryDirectory() as folder, _relevance() as address:
        ws = _workspace(Path(folder), tell, quick=quick)
        online = {**ANSWER, "objective": "grpo", "rewards": [{"by": address}], "guard": {"by": "rule:own-words"},
                  "guard_window": WINDOW, "steps": 2 * WINDOW if quick else 80}  # fmt: skip
        seen: list[Mapping[str, float]] = []
        try:
            _round(ws, online, tell, seen)
            caught = 0.0
        except GuardError:
            caught = 1.0
        kept = ws.registry.resolve("champion").digest == ws.registry.resolve("base").digest
    yield Figure("exploited reward caught", caught, 1.0, "at least", f"after {len(seen)} steps")
    yield Figure("champion kept", float(kept), 1.0, "at least")


@contextmanager
def _relevance() -> Iterator[str]:
    """A server whose reward is how many of an answer's words the question has: easily earned by copying it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["answers"]
            scores = [-own_words(row["messages"][-1]["content"], row["answer"]) / 5 for row in rows]
            # Saying nothing earns nothing.
            found = [0.0 if not row["answer"].strip() else score for row, score in zip(rows, scores, strict=True)]
            body = json.dumps({"rewards": found}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def _workspace(root: Path, tell: Tell, *, quick: bool) -> Workspace:
    """Answers of the base to the project's prompts, judged by a guideline and frozen."""
    tell("the base answers the project's prompts")
    ws = Workspace.init(root / "ws", base=default_directory())
    file = root / "prompts.jsonl"
    asked = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": p.text}] for p in prompts()]
    rows = (json.dumps({"prompt": turns}) + "\n" for turns in asked[: FEWER if quick else ANSWERED])
    file.write_text("".join(rows), encoding="utf-8")
    settings = GenerateSettings(max_new_tokens=24, batch_size=96, numerics=_numerics())
    ws.generate(file, policy="base", settings=settings, where="here")
    ws.simulate("own-words")
    ws.freeze(name="own-words", rule=FreezeRule(min_pairs=0))
    return ws


def _numerics() -> NumericsSettings:
    return fastest(min(THREADS, torch.get_num_threads()))


def _round(
    ws: Workspace, online: Mapping[str, Any], tell: Tell, seen: list[Mapping[str, float]] | None = None
) -> tuple[list[Mapping[str, float]], Verdict]:
    """Facts of every step, and what the gate said."""
    facts: list[Mapping[str, float]] = [] if seen is None else seen
    settings = RoundSettings.model_validate(
        {"method": "plain", "version": "own-words", "online": online, "training": TRAINED, "numerics": _numerics(),
         "evaluation": {"samples": 32, "max_new_tokens": 24, "suites": []}}
    )  # fmt: skip

    def watch(progress: Progress) -> None:
        if "reward" in progress.facts:
            facts.append(progress.facts)
            tell(f"step {progress.done} of {progress.total}, reward {progress.facts['reward']:.2f}")

    outcome = ws.round(ws.plan(settings)).run(where="here", watch=watch)
    return facts, outcome.verdict


def _rise(rewards: list[float]) -> Estimate:
    """The last steps' rewards minus the first ones'."""
    return mean([b - a for a, b in zip(rewards[:WINDOW], rewards[-WINDOW:], strict=True)])


PARTS = {"toy": toy, "climb": climb, "guard": guard, "workers": workers}
