"""TRL's side of `workbench bench speed`: its own DPO trainer, as its documentation has it."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

VARIANTS: dict[str, dict[str, Any]] = {
    "trl-default": {},
    "trl-tuned": {"activation_checkpointing": False, "precompute_ref_log_probs": True},
}


class Clock(TrainerCallback):
    """When steps end."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Look at the clock."""
        self.steps.append(time.perf_counter())


def run(given: Path) -> dict[str, float]:
    """One epoch."""
    work = json.loads(given.read_text(encoding="utf-8"))
    training, numerics = work["training"], work["numerics"]
    torch.set_num_threads(numerics["threads"])
    base = work["policy"]["base_path"]
    rows = [json.loads(line) for line in Path(work["rows"]).read_text(encoding="utf-8").splitlines()]
    clock = Clock()
    config = DPOConfig(
        output_dir=work["folder"],
        use_cpu=True,
        bf16=numerics["dtype"] == "bfloat16",
        per_device_train_batch_size=training["batch_size"],
        num_train_epochs=1,
        max_length=training["max_length"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **VARIANTS[work["variant"]],
    )
    lora = LoraConfig(
        r=training["rank"], lora_alpha=training["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
    )
    began = time.perf_counter()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(base, local_files_only=True),
        peft_config=lora,
        callbacks=[clock],
    )
    trainer.train()
    whole = time.perf_counter() - began
    step = (clock.steps[-1] - clock.steps[0]) / (len(clock.steps) - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_s": step, "round_s": whole, "peak_mb": peak, "useful": 0.0}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))), encoding="utf-8")
