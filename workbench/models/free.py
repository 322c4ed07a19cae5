"""How much memory this process may still take."""

import math
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: str = "cpu") -> int:
    """Bytes this process may still take: of the GPU, the machine, or the control group it is in (Linux, version 2)."""
    if device != "cpu":
        torch.cuda.empty_cache()  # what torch keeps for itself counts as used
        return torch.cuda.mem_get_info(device)[0]
    free: float = psutil.virtual_memory().available
    for folder in _control_groups():
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            # Pages of files are given back when memory is short.
            free = min(free, int(limit) - used + int(facts.get("inactive_file", 0)))
    return max(0, math.floor(free))


def _control_groups() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    inside = CGROUP / own.lstrip("/")
    return [each for each in (inside, *inside.parents) if each == CGROUP or CGROUP in each.parents]
