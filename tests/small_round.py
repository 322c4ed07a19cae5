"""A round without models: real journal, registry, ledger and cache, and files of a few bytes. For tests that kill it."""

import json
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from preference_data.records import digest
from workbench.drift.ledger import Ledger
from workbench.failpoints import VARIABLE
from workbench.objects import Objects, seal
from workbench.policies.registry import Registry
from workbench.rounds.journal import Journal
from workbench.schema import open_ledger
from workbench.scoring.cache import Score, ScoreCache
from workbench.tasks import Item, Progress

MODULE = "model.layers.0.self_attn.q_proj"
ROUND = digest("round 1")


def write_base(folder: Path, *, width: int = 4, fill: float = 0.0) -> Path:
    """A folder that looks like a Hugging Face model."""
    folder.mkdir(parents=True)
    tensors = {
        f"{MODULE}.weight": np.full((2 * width, width), fill, np.float32),
        "model.embed_tokens.weight": np.full((10, width), fill, np.float32),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": True}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def write_adapter(folder: Path, *, width: int = 4, fill: float = 1.0, module: str = MODULE, **config: object) -> Path:
    """A folder that looks like a PEFT adapter over `write_base`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"base_model.model.{module}"
    tensors = {
        f"{name}.lora_A.weight": np.full((2, width), fill, np.float32),
        f"{name}.lora_B.weight": np.full((2 * width, 2), fill, np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "base_model_name_or_path": "/home/ada/base", "target_modules": ["v_proj", "q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(values | config))
    return folder
    return folder


def run_small_round(folder: Path, fail_at: str = "", grace_s: float = 0) -> None:
    """Run a round in a workspace, or go on with it; killed where `fail_at` says. What is older than `grace_s` goes."""
    os.environ[VARIABLE] = fail_at
    engine = open_ledger(f"sqlite:///{folder}/ledger.db")
    objects = Objects(folder)
    (objects.stage() / "left").write_text("behind by somebody")
    journal, registry = Journal(engine, objects), Registry(engine, objects)
    base = registry.add_base(folder / "base", "tiny")
    journal.begin(ROUND, 1, "{}")
    score = journal.step(ROUND, "score", "i1", lambda out, _: _score(out, ScoreCache(engine), folder))
    trained = journal.step(ROUND, "optimise", score, lambda out, report: _optimise(out, report, folder))
    child = registry.commit_child(
        trained, parent=base.digest, round_digest=ROUND, version=None, config=None, name="round-1"
    )
    measured = journal.step(ROUND, "evaluate", trained, lambda out, _: _evaluate(out, folder))
    value = float((objects.path(measured) / "items").read_text())
    Ledger(engine).record(child.digest, "fp32", [Item("choice", str(i), "correct", value, "g", {}, {}) for i in (1, 2)])
    registry.promote(child.digest, reason="gate passed", by="test", expected=base.digest, round_digest=ROUND)
    journal.finish(ROUND, "promoted", child=child.digest)
    objects.sweep(journal.outputs(), older_than_s=grace_s)


def _began(folder: Path, step: str) -> None:
    with (folder / "began").open("a") as file:
        file.write(f"{step}\n")


def _score(output: Path, cache: ScoreCache, folder: Path) -> None:
    _began(folder, "score")
    cache.put("p", "fp32", {"example": Score(-1.5, 3)})
    (output / "scores").write_text("-1.5")


def _optimise(output: Path, report, folder: Path) -> None:
    _began(folder, "optimise")
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    (scratch / "state").write_text("7")
    seal(scratch)
    report(Progress("optimise", 1, 1, {"loss": 0.69}))
    write_adapter(output, base_model_name_or_path="")


def _evaluate(output: Path, folder: Path) -> None:
    _began(folder, "evaluate")
    (output / "items").write_text("1.0")
