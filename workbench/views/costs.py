"""What a lineage paid: capability lost, and how far each policy moved from earlier ones."""

from collections.abc import Iterator, Sequence

from workbench.drift.metrics import Series, bits_per_byte, bits_tax, kl_per_token, tax
from workbench.drift.uncertainty import Estimate, share
from workbench.tasks import suite_title
from workbench.views.reading import Reader, compare, flipped
from workbench.views.records import NOT_MEASURED, Divergence, PolicyView, Prompts, Tax, VersionView

CAPABILITIES = ("correct", "bits")
"""Metrics that make a suite one of capability, as a gate has it."""


def taxes(read: Reader, policies: Sequence[PolicyView]) -> tuple[Tax, ...]:
    """Every policy on every capability suite measured of any; those of one suite follow each other."""
    suites = {(m.suite, m.metric) for p in policies for m in read.measured(p.digest) if m.metric in CAPABILITIES}
    return tuple(
        (_choice if metric == "correct" else _text)(read, policies, p.round, suite)
        for suite, metric in sorted(suites)
        for p in policies
    )


def divergences(
    read: Reader, policies: Sequence[PolicyView], versions: Sequence[VersionView]
) -> tuple[Divergence, ...]:
    """KL of every policy to its base, parent and anchors, and back, on prompts of every version."""
    return tuple(
        Divergence(policy.round, i, prompts, other, roles, value, back)
        for policy in policies[1:]
        for other, roles in _others(policies, policy).items()
        for i, prompts in answered(policies, policy, versions)
        for value, back in [
            [_kl(read, policy.digest, versions[i].digest, f"{way}/{other}") for way in ("kl", "kl_back")]
        ]
        if prompts != "untrained" or value.value is not None
    )


def answered(
    policies: Sequence[PolicyView], policy: PolicyView, versions: Sequence[VersionView]
) -> Iterator[tuple[int, Prompts]]:
    """Place of each version, once, and what its prompts are to a policy."""
    earlier = {p.version for p in policies[1 : policy.round]}
    seen: set[str] = set()
    for i, version in enumerate(versions):
        if version.digest in seen:
            continue
        seen.add(version.digest)
        old: Prompts = "old" if version.digest in earlier else "untrained"
        yield i, "new" if version.digest == policy.version else old


def _choice(read: Reader, policies: Sequence[PolicyView], after: int, suite: str) -> Tax:
    base, parent, own = (read.series(policies[t].digest, suite, "correct") for t in (0, max(after - 1, 0), after))
    return Tax(
        round=after,
        suite=suite,
        name=suite_title(suite),
        unit="accuracy",
        level=share(own.values, own.groups) if own else NOT_MEASURED,
        tax=compare(tax, base, own) if after else NOT_MEASURED,
        step_tax=compare(tax, parent, own) if after else NOT_MEASURED,
        flips=flipped(base, own) if after else None,
    )


def _text(read: Reader, policies: Sequence[PolicyView], after: int, suite: str) -> Tax:
    base, parent, own = (read.series(policies[t].digest, suite, "bits") for t in (0, max(after - 1, 0), after))
    return Tax(
        round=after,
        suite=suite,
        name=suite_title(suite),
        unit="bits per byte",
        level=compare(bits_per_byte, own, read.series(policies[after].digest, suite, "bytes")),
        tax=compare(bits_tax, base, own) if after else NOT_MEASURED,
        step_tax=compare(bits_tax, parent, own) if after else NOT_MEASURED,
        flips=None,
    )


def _others(policies: Sequence[PolicyView], policy: PolicyView) -> dict[str, tuple[str, ...]]:
    """What the base, the parent and every anchor are to a policy, by digest."""
    roles: dict[str, list[str]] = {policies[0].digest: ["base"]}
    roles.setdefault(policies[policy.round - 1].digest, []).append("parent")
    for digest, weight in policy.anchors.items():
        roles.setdefault(digest, []).append(f"anchor {weight:.2f}")
    return {digest: tuple(names) for digest, names in roles.items()}


def _kl(read: Reader, policy: str, version: str, metric: str) -> Estimate:
    suite = f"samples/{version}"
    tokens: Series | None = read.series(policy, suite, "tokens")
    return compare(kl_per_token, read.series(policy, suite, metric), tokens)
