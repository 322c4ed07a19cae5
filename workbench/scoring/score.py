"""Scoring a version's pairs under one policy; only what the cache lacks is computed."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from preference_data.records import Pair
from preference_data.versions import load_version
from workbench.errors import StopRequested
from workbench.models.forward import completion_logps
from workbench.models.load import Family, family_of
from workbench.models.numerics import apply_numerics, numerics_key
from workbench.models.score_table import PairScore, write_table
from workbench.models.tokens import Encoded, EncodedPair, encode_pair, example_key
from workbench.schema import open_ledger
from workbench.scoring.cache import Score, ScoreCache
from workbench.tasks import WHOLE, Progress, Report, ScoreJob

COMMIT_EVERY_S = 5.0
"""Scores are committed about this often, so that a killed worker loses little and the database is written rarely."""


def score(job: ScoreJob, report: Report) -> None:
    """Write `scores.parquet` for the splits asked for. Pairs whose prompt fills `max_length` are left out.

    A part of a job only adds its scores to the cache.
    """
    version = load_version(Path(job.version.path))
    pairs = [p for split in job.splits for p in version.pairs(split)]
    family = family_of(job.policy, job.numerics)
    scorer = Scorer(family, job, ScoreCache(open_ledger(job.cache)), report)
    encoded = scorer.encode(pairs)
    scores = scorer.examples([side for both in encoded.values() for side in both])
    if job.part == WHOLE:
        write_table(Path(job.output), scorer.table(encoded, scores))


class Scorer:
    """Scores under one policy through the cache."""

    def __init__(self, family: Family, job: ScoreJob, cache: ScoreCache, report: Report) -> None:
        self._family, self._job, self._cache, self._report = family, job, cache, report

    def encode(self, pairs: Iterable[Pair]) -> dict[str, EncodedPair]:
        """Pairs in tokens, by pair key."""
        encoded: dict[str, EncodedPair] = {}
        for pair in pairs:
            found = encode_pair(self._family.tokenizer, pair, max_length=self._job.max_length)
            if found:
                encoded[pair.key] = found
        return encoded

    def table(self, encoded: Mapping[str, EncodedPair], scores: Mapping[str, Score]) -> dict[str, PairScore]:
        """Scores by pair key."""
        return {
            key: PairScore(
                scores[self._key(both.chosen)].logp,
                scores[self._key(both.rejected)].logp,
                len(both.chosen.completion),
                len(both.rejected.completion),
            )
            for key, both in encoded.items()
        }

    def examples(self, examples: Sequence[Encoded]) -> dict[str, Score]:
        """Scores by example key; each distinct example is computed at most once, ever.

        Batches are those of all examples, with what is known left out, so that the parts of a job compute together
        what it would compute alone, bit by bit.
        """
        wanted = {self._key(e): e for e in examples}
        condition = numerics_key(self._job.numerics)
        known = self._cache.get(self._job.policy.digest, condition, list(wanted))
        keys, todo = list(wanted), list(wanted.values())
        part = self._job.part
        every = list(self._family.batches(todo, size=self._job.batch_size))[part.number :: part.of]
        batches = [left for batch in every if (left := [i for i in batch if keys[i] not in known])]
        fresh: dict[str, Score] = {}
        saved, scored, total = time.monotonic(), 0, sum(map(len, batches))
        with apply_numerics(self._job.numerics), self._family.using(self._job.policy) as model:
            for batch in batches:
                rows = self._family.collate([todo[i] for i in batch])
                for i, logp in zip(batch, completion_logps(model, rows).tolist(), strict=True):
                    known[keys[i]] = fresh[keys[i]] = Score(logp, len(todo[i].completion))
                if time.monotonic() - saved > COMMIT_EVERY_S:
                    self._cache.put(self._job.policy.digest, condition, fresh)
                    fresh, saved = {}, time.monotonic()
                scored += len(batch)
                if self._report(Progress("score", scored, total, {})):
                    self._cache.put(self._job.policy.digest, condition, fresh)
                    raise StopRequested("the round was asked to stop; scores so far are kept; run it again to go on")
        self._cache.put(self._job.policy.digest, condition, fresh)
        return known

    def _key(self, example: Encoded) -> str:
        return example_key(self._job.policy.tokenizer, example)
