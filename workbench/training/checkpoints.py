"""Checkpoints that are used only if every byte is as it was written.

transformers writes a checkpoint in place and takes the highest number on resumption, complete or not. Here a
checkpoint counts once its manifest is sealed, and is verified before anything in it is opened.
"""

import json
import re
import shutil
from pathlib import Path

from workbench.errors import ArtifactError
from workbench.objects import seal, verify_folder

PLAN_FILE = "plan.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def seal_checkpoint(folder: Path, plan: str) -> None:
    """Note whose checkpoint it is and write its manifest."""
    (folder / PLAN_FILE).write_text(json.dumps({"plan": plan}), encoding="utf-8")
    seal(folder)


def newest_verified(scratch: Path, plan: str) -> Path | None:
    """The newest checkpoint of this plan whose manifest verifies; damaged or foreign ones are removed."""
    numbered = [(int(m.group(1)), p) for p in scratch.glob("checkpoint-*") if (m := _NAME.fullmatch(p.name))]
    for _, folder in sorted(numbered, reverse=True):
        if _is_sound(folder, plan):
            return folder
        shutil.rmtree(folder)
    return None


def _is_sound(folder: Path, plan: str) -> bool:
    try:
        verify_folder(folder)
        return json.loads((folder / PLAN_FILE).read_text(encoding="utf-8")) == {"plan": plan}
    except (ArtifactError, OSError, ValueError):
        return False
