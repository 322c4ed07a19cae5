"""Turns a GGUF file into a plain Hugging Face folder: `python -m workbench.models.convert_gguf WEIGHTS.gguf FOLDER`.

The saved weights are the de-quantised ones in fp32: values between 4-bit steps are not exact in bf16, and a base that
changed on the way to disk would no longer be the base its digest names.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(weights: Path, folder: Path) -> None:
    """Writes model, configuration, tokenizer and chat template of a GGUF file into an existing folder.

    Args:
        weights: the GGUF file.
        folder: receives `model.safetensors` (fp32) and the small files beside it.
    """
    place = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    # without dequantize=True the model stays packed: it can be neither saved nor fully fine-tuned
    model = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
