"""Scoring a version's pairs and held-out single answers under one policy; only what the cache lacks is computed."""

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from preference_data.records import Split
from preference_data.versions import load_version
from workbench.errors import StopRequested
from workbench.models.forward import completion_logps
from workbench.models.load import family_of, load_tokenizer
from workbench.models.numerics import apply_numerics, numerics_key
from workbench.models.score_table import PairScore, write_table
from workbench.models.tokens import Encoded, EncodedPair, encode_pair, example_key
from workbench.schema import open_ledger
from workbench.scoring.cache import Score, ScoreCache
from workbench.tasks import WHOLE, Progress, Report, ScoreJob, VersionRef

COMMIT_EVERY_S = 5.0
"""Scores are committed about this often, so that a killed worker loses little and the database is written rarely."""


class Asked(NamedTuple):
    """What a job asks for, in tokens; the same for every policy of a lineage.

    Attributes:
        pairs: by pair key, without those whose prompt fills `max_length`.
        keys: of each pair's chosen and rejected answer in the cache, by pair key.
        examples: each distinct answer with its prompt, by its key.
    """

    pairs: dict[str, EncodedPair]
    keys: dict[str, tuple[str, str]]
    examples: dict[str, Encoded]


def score(job: ScoreJob, report: Report) -> None:
    """Write `scores.parquet` for the splits asked for. Pairs whose prompt fills `max_length` are left out.

    The model is loaded only where the cache lacks a score. A part of a job only adds its scores to the cache.
    """
    asked, cache = _asked(job), ScoreCache(open_ledger(job.cache))
    known = _known(job, asked, cache)
    if len(known) < len(asked.examples):
        known |= _computed(job, asked.examples, known, cache=cache, report=report)
    if job.part == WHOLE:
        write_table(Path(job.output), _table(asked, known))


def missing(job: ScoreJob) -> int:
    """How many pairs have an answer that the cache lacks. Nothing is loaded but the tokenizer."""
    asked = _asked(job)
    known = _known(job, asked, ScoreCache(open_ledger(job.cache)))
    return sum(any(key not in known for key in keys) for keys in asked.keys.values())


def _asked(job: ScoreJob) -> Asked:
    return _encoded(job.version, job.splits, job.max_length, (job.policy.base_path, job.policy.tokenizer))


@lru_cache(maxsize=2)
def _encoded(version: VersionRef, splits: tuple[Split, ...], max_length: int, tokenizer: tuple[str, str]) -> Asked:
    """Pairs in tokens, under the tokenizer in a folder, with its digest; kept for the other policies of a round."""
    folder, digest = tokenizer
    read, loaded = load_version(Path(version.path)), load_tokenizer(folder)
    asked = [pair for split in splits for pair in read.pairs(split)]
    every = {pair.key: encode_pair(loaded, pair, max_length=max_length) for pair in asked}
    if "test" in splits:  # what is trained on of single answers lies in a version of pairs
        every |= {one.key: encode_pair(loaded, one.twice, max_length=max_length) for one in read.singles("test")}
    pairs = {key: both for key, both in every.items() if both}
    keys = {key: (example_key(digest, both.chosen), example_key(digest, both.rejected)) for key, both in pairs.items()}
    examples = {key: side for pair, both in pairs.items() for key, side in zip(keys[pair], both, strict=True)}
    return Asked(pairs, keys, examples)


def _known(job: ScoreJob, asked: Asked, cache: ScoreCache) -> dict[str, Score]:
    return cache.get(job.policy.digest, numerics_key(job.numerics), list(asked.examples))


def _table(asked: Asked, scores: Mapping[str, Score]) -> dict[str, PairScore]:
    """Scores by pair key."""
    found: dict[str, PairScore] = {}
    for pair, (chosen, rejected) in asked.keys.items():
        c, r = scores[chosen], scores[rejected]
        found[pair] = PairScore(c.logp, r.logp, c.tokens, r.tokens)
    return found


def _computed(
    job: ScoreJob, examples: Mapping[str, Encoded], known: Mapping[str, Score], *, cache: ScoreCache, report: Report
) -> dict[str, Score]:
    """Scores of a job's part by example key; each is computed at most once, ever.

    Batches are those of all examples, with what is known left out, so that the parts of a job compute together
    what it would compute alone, bit by bit.
    """
    family, condition = family_of(job.policy, job.numerics), numerics_key(job.numerics)
    keys, every = list(examples), list(examples.values())
    batches = list(family.batches(every, size=job.batch_size))[job.part.number :: job.part.of]
    batches = [left for batch in batches if (left := [i for i in batch if keys[i] not in known])]
    found: dict[str, Score] = {}
    fresh: dict[str, Score] = {}
    saved, total = time.monotonic(), sum(map(len, batches))
    with apply_numerics(job.numerics), family.using(job.policy) as model:
        for batch in batches:
            rows = family.collate([every[i] for i in batch])
            for i, logp in zip(batch, completion_logps(model, rows).tolist(), strict=True):
                found[keys[i]] = fresh[keys[i]] = Score(logp, len(every[i].completion))
            if time.monotonic() - saved > COMMIT_EVERY_S:
                cache.put(job.policy.digest, condition, fresh)
                fresh, saved = {}, time.monotonic()
            if report(Progress("score", len(found), total, {})):
                cache.put(job.policy.digest, condition, fresh)
                raise StopRequested("the round was asked to stop; scores so far are kept; run it again to go on")
    cache.put(job.policy.digest, condition, fresh)
    return found
