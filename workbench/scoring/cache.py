"""Scores computed once: log-probabilities per example, policy and numerics, for ever."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Engine, delete, select, text

from preference_data.database import insert_missing, reading, writing
from workbench.errors import NumericsError
from workbench.failpoints import failpoint
from workbench.schema import score as table

LOOKUP = 500
"""Examples asked for in one statement; SQLite before 3.32 takes 999 parameters."""


class Score(NamedTuple):
    """Log-probability of one completion after its prompt.

    Attributes:
        logp: nats, summed over the completion's tokens.
        tokens: how many tokens that is.
    """

    logp: float
    tokens: int


class ScoreCache:
    """The score table of a ledger database. Entries are never changed: the first score of an example stays."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, policy: str, numerics: str, examples: Sequence[str]) -> dict[str, Score]:
        """What is known of these examples.

        Args:
            policy: digest of the policy.
            numerics: key of dtype, attention path and scorer version.
            examples: keys of prompt, completion and tokenizer.

        Returns:
            Scores by example key; what was never scored is left out.
        """
        found: dict[str, Score] = {}
        columns = select(table.c.example, table.c.logp, table.c.tokens)
        under = columns.where(table.c.policy == policy, table.c.numerics == numerics)
        with reading(self._engine) as connection:
            for start in range(0, len(examples), LOOKUP):
                part = examples[start : start + LOOKUP]
                rows = connection.execute(under.where(table.c.example.in_(part)))
                found |= {row.example: Score(row.logp, row.tokens) for row in rows}
        return found

    def put(self, policy: str, numerics: str, scores: Mapping[str, Score]) -> None:
        """Add scores by example key, in one transaction.

        Raises:
            NumericsError: a log-probability is not finite; nothing is then added.
        """
        for example, score in scores.items():
            if not math.isfinite(score.logp):
                raise NumericsError(
                    f"score of example {example[:12]} under policy {policy[:12]}: got {score.logp}, expected a finite "
                    "log-probability; check the policy's weights with `workbench policies --verify`"
                )
        key = {"policy": policy, "numerics": numerics}
        with writing(self._engine) as connection:
            insert_missing(connection, table, [{**key, "example": e, **s._asdict()} for e, s in scores.items()])
            failpoint("cache.put.before_commit")
        failpoint("cache.put.after_commit")

    def clear(self) -> None:
        """Forget all scores: the one way to remove rows of the table, for caches that do not match their policies.

        The triggers that refuse it are taken away and put back in the same transaction.
        """
        with writing(self._engine) as connection:
            if connection.dialect.name == "sqlite":
                found = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table")
                triggers = connection.execute(found, {"table": table.name}).all()
                for trigger in triggers:
                    connection.execute(text(f"DROP TRIGGER {trigger.name}"))
                connection.execute(delete(table))
                for trigger in triggers:
                    connection.execute(text(trigger.sql))
            else:
                connection.execute(text(f"ALTER TABLE {table.name} DISABLE TRIGGER USER"))
                connection.execute(delete(table))
                connection.execute(text(f"ALTER TABLE {table.name} ENABLE TRIGGER USER"))
