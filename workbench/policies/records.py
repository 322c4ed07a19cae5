"""What is known of a policy, and who is meant by a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.errors import PolicyError
from workbench.policies.lineage import ancestry, at_depth
from workbench.schema import timestamp
from workbench.tasks import PolicyRef

SHORTEST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """One policy. Only the path of a base ever changes, when its folder is moved.

    Attributes:
        digest: content id of the weights.
        parent: digest of the policy it was trained from; None for a base.
        base: digest of policy 0 of its lineage; its own for a base.
        tokenizer: digest of the lineage's tokenizer and chat template.
        path: folder of its files.
        name: what people call it.
        round, version, config: digests of the round, dataset version and settings that made it, where known.
        created_at: UTC, ISO 8601.
        facts: what else is known, as JSON values; for a base the hashes of its files.
    """

    digest: str
    kind: Literal["full", "adapter"]
    parent: str | None
    base: str
    tokenizer: str
    path: str
    origin: Literal["base", "round", "adopted"]
    name: str
    round: str | None = None
    version: str | None = None
    config: str | None = None
    created_at: str = field(default_factory=timestamp)
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def ref(self, base_path: str) -> PolicyRef:
        """What jobs are told of this policy.

        Args:
            base_path: folder of the lineage's base.
        """
        return PolicyRef(self.digest, self.kind, self.path, self.base, base_path, self.tokenizer)


def find_policy(name: str, known: Mapping[str, PolicyRecord], champion: str | None) -> PolicyRecord:
    """The policy a person means.

    Args:
        name: `champion`; `base` (of the champion's lineage); a policy's name; a digest or a prefix of at least four
            characters; a round's number in the champion's lineage, as `2` or `round-2`.
        known: all policies by digest.
        champion: digest of the champion; None where there is none.

    Raises:
        PolicyError: nothing or several policies answer to it; lists what exists.
    """
    candidates = _candidates(name, known, champion)
    if len(candidates) == 1:
        return candidates[0]
    listed = "; ".join(f"{p.name} ({p.digest[:12]})" for p in (candidates or tuple(known.values())))
    if candidates:
        raise PolicyError(f"policy {name!r}: several answer to it: {listed}; give one's digest")
    raise PolicyError(
        f"policy {name!r}: unknown; there are: {listed or 'none yet, add a base first'}; "
        "give a name, a digest, a round's number, `base` or `champion`"
    )


def _candidates(name: str, known: Mapping[str, PolicyRecord], champion: str | None) -> tuple[PolicyRecord, ...]:
    parents = {d: p.parent for d, p in known.items()}
    line = () if champion is None else ancestry(champion, parents)
    if line and name in {"champion", "base"}:
        return (known[line[-1 if name == "champion" else 0]],)
    if named := tuple(p for p in known.values() if p.name == name):
        return named
    if len(name) >= SHORTEST_PREFIX and (prefixed := tuple(p for d, p in known.items() if d.startswith(name))):
        return prefixed
    number = name.removeprefix("round-")
    if not number.isdecimal():
        return ()
    if int(number) < len(line):
        return (known[line[int(number)]],)
    return tuple(known[d] for d in at_depth(int(number), parents))
