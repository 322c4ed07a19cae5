"""Policies, rounds, steps, measurements and scores.

Revision ID: s001
Revises: none
"""

import sqlalchemy as sa
from alembic import op

revision = "s001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.Double().with_variant(sa.REAL(), "sqlite")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("alias_event", "event", "measurement", "score")


def upgrade() -> None:
    """Make the tables and the triggers that keep the append-only ones so."""
    _policies()
    _rounds()
    _results()
    for table in APPEND_ONLY:
        _append_only(table)


def downgrade() -> None:
    """There is nothing before this.

    Raises:
        NotImplementedError: always; restore a backup instead.
    """
    raise NotImplementedError("a ledger is not taken back; restore the backup made before the upgrade")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _policies() -> None:
    op.create_table(
        "policy",
        _text("digest"),
        _text("kind"),
        _text("parent", nullable=True),
        _text("base"),
        _text("tokenizer"),
        _text("round", nullable=True),
        _text("version", nullable=True),
        _text("config", nullable=True),
        _text("path", nullable=True),
        _text("origin"),
        _text("name"),
        _text("created_at"),
        _text("facts"),
        sa.PrimaryKeyConstraint("digest", name="pk_policy"),
        sa.CheckConstraint("kind IN ('full', 'adapter')", name=op.f("ck_policy_kind")),
        sa.CheckConstraint("origin IN ('base', 'round', 'adopted')", name=op.f("ck_policy_origin")),
        sqlite_strict=True,
    )
    op.create_table(
        "alias",
        _text("name"),
        _text("policy"),
        sa.PrimaryKeyConstraint("name", name="pk_alias"),
        sqlite_strict=True,
    )
    op.create_table(
        "alias_event",
        sa.Column("id", SEQUENCE, autoincrement=True, nullable=False),
        _text("name"),
        _text("kind"),
        _text("old", nullable=True),
        _text("new"),
        _text("round", nullable=True),
        _text("reason"),
        _text("by"),
        _text("at"),
        sa.PrimaryKeyConstraint("id", name="pk_alias_event"),
        sa.UniqueConstraint("name", "round", name="uq_alias_event_name_round"),
        sa.CheckConstraint("kind IN ('promote', 'rollback')", name=op.f("ck_alias_event_kind")),
        sqlite_strict=True,
    )


def _rounds() -> None:
    op.create_table(
        "round",
        _text("digest"),
        sa.Column("number", sa.Integer, nullable=False),
        _text("plan"),
        _text("state"),
        _text("child", nullable=True),
        _text("verdict", nullable=True),
        _text("message"),
        _text("started_at"),
        _text("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_round"),
        sa.CheckConstraint(
            "state IN ('planned', 'running', 'stopped', 'failed', 'rejected', 'promoted', 'kept')",
            name=op.f("ck_round_state"),
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "step",
        _text("round"),
        _text("name"),
        sa.Column("position", sa.Integer, nullable=False),
        _text("state"),
        sa.Column("fence", sa.Integer, nullable=False),
        _text("owner"),
        sa.Column("lease_until", NUMBER, nullable=False),
        _text("input_digest"),
        _text("output_digest", nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("round", "name", name="pk_step"),
        sa.CheckConstraint("state IN ('open', 'claimed', 'done')", name=op.f("ck_step_state")),
        sa.CheckConstraint("(state = 'done') = (output_digest IS NOT NULL)", name=op.f("ck_step_output")),
        sqlite_strict=True,
    )
    op.create_table(
        "event",
        sa.Column("id", SEQUENCE, autoincrement=True, nullable=False),
        _text("round"),
        _text("step"),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        _text("facts"),
        _text("at"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sqlite_strict=True,
    )
    op.create_index("ix_event_round", "event", ["round"])
    op.create_table(
        "stop",
        _text("round"),
        _text("by"),
        _text("at"),
        sa.PrimaryKeyConstraint("round", name="pk_stop"),
        sqlite_strict=True,
    )


def _results() -> None:
    op.create_table(
        "measurement",
        _text("policy"),
        _text("suite"),
        _text("item"),
        _text("metric"),
        _text("numerics"),
        sa.Column("value", NUMBER, nullable=False),
        _text("group"),
        _text("slices"),
        _text("detail"),
        sa.PrimaryKeyConstraint("policy", "suite", "metric", "numerics", "item", name="pk_measurement"),
        sqlite_strict=True,
    )
    op.create_table(
        "score",
        _text("policy"),
        _text("numerics"),
        _text("example"),
        sa.Column("logp", NUMBER, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("policy", "numerics", "example", name="pk_score"),
        sqlite_strict=True,
    )


def _append_only(table: str) -> None:
    """Refuse every UPDATE and DELETE on a table."""
    message = f"{table} is append-only: rows are added, never changed or removed"
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_is_append_only()"
    )
