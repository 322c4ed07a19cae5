"""Named points at which a test can kill the process.

A failpoint does nothing unless the environment variable `WORKBENCH_FAIL_AT` names it: `name` kills at the first time
the point is reached, `name:3` at the third. The kill is SIGKILL, so that nothing is cleaned up, as in a power cut of
the process. Every commit and rename that a round rests on has one before and one after it.
"""

import os
import signal
from collections import Counter

VARIABLE = "WORKBENCH_FAIL_AT"

FAILPOINTS = (
    "journal.begin.before_commit",
    "journal.begin.after_commit",
    "journal.claim.before_commit",
    "journal.claim.after_commit",
    "journal.step.after_work",
    "objects.publish.before_manifest",
    "objects.publish.before_rename",
    "objects.publish.after_rename",
    "journal.complete.before_commit",
    "journal.complete.after_commit",
    "registry.add.before_commit",
    "registry.add.after_commit",
    "registry.promote.before_commit",
    "registry.promote.after_commit",
    "ledger.record.before_commit",
    "ledger.record.after_commit",
    "cache.put.before_commit",
    "cache.put.after_commit",
    "journal.finish.before_commit",
    "journal.finish.after_commit",
    "objects.seal.before_rename",
    "objects.sweep.after_rename",
    "training.step",
    "training.before_seal",
)
"""All of them, so that a test can kill at each."""

_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill this process here if the environment says so.

    Args:
        name: one of `FAILPOINTS`.
    """
    wanted, _, count = os.environ.get(VARIABLE, "").partition(":")
    if wanted != name:
        return
    _hits[name] += 1
    if _hits[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
