"""LLaMA-Factory's side of `workbench bench speed`; runs in an environment of its own, without this project."""

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

ROLES = {"user": "human", "assistant": "gpt", "system": "system"}


def run(given: Path) -> dict[str, float]:
    """One epoch of its DPO, LoRA on all layers, activations kept."""
    work = json.loads(given.read_text(encoding="utf-8"))
    training, numerics = work["training"], work["numerics"]
    torch.set_num_threads(numerics["threads"])
    steps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append(time.perf_counter())

    folder = Path(work["folder"]) / f"llama-factory-{time.monotonic_ns()}"
    _dataset(Path(work["rows"]), folder)
    settings = {
        "model_name_or_path": work["policy"]["base_path"],
        "stage": "dpo",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": training["rank"],
        "lora_alpha": training["alpha"],
        "pref_beta": 0.1,
        "pref_loss": "sigmoid",
        "dataset": "pairs",
        "dataset_dir": str(folder),
        "template": "smollm2",
        "cutoff_len": training["max_length"],
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": training["batch_size"],
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "bf16": numerics["dtype"] == "bfloat16",
        "use_cpu": True,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "dataloader_num_workers": 0,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1000,
    }
    tuner = import_module("llamafactory.train.tuner")
    began = time.perf_counter()
    tuner.run_exp(settings, callbacks=[Clock()])
    whole = time.perf_counter() - began
    step = (steps[-1] - steps[0]) / (len(steps) - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_s": step, "round_s": whole, "peak_mb": peak, "useful": 0.0}


def _dataset(rows: Path, folder: Path) -> None:
    """The pairs in its own form."""
    folder.mkdir(parents=True)
    found = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns = [{"from": ROLES[turn["role"]], "value": turn["content"]} for turn in row["prompt"]]
        sides = {side: {"from": "gpt", "value": row[side][0]["content"]} for side in ("chosen", "rejected")}
        found.append({"conversations": turns, **sides})
    (folder / "pairs.json").write_text(json.dumps(found), encoding="utf-8")
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    described = {"file_name": "pairs.json", "formatting": "sharegpt", "ranking": True, "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps({"pairs": described}), encoding="utf-8")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))), encoding="utf-8")
