"""The tables of annotation: projects, the items to be judged, who was shown what, notes, accounts, and the audit log.

They share the store's database. What happened only ever grows, like everything in `schema`; three tables do change, and
hold nothing that people said: `open_item` is derived from the others, `credential` and `session` are about logging in.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from preference_data.schema import Json, Utc, metadata, one_of

MODES = ("pairwise", "rating", "thumb", "ranking")
PURPOSES = ("work", "gold", "trial", "repeat")
OUTCOMES = ("judged", "skipped", "late", "released")
ROLES = ("annotator", "lead", "admin")
STATES = ("active", "paused", "closed")
NOTES = ("comment", "returned")

project = Table(
    "project",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("name", Json, nullable=False),
    Column("mode", Text, nullable=False),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    one_of("mode", MODES),
    sqlite_strict=True,
)
project_change = Table(
    "project_change",
    metadata,
    Column("project", Integer, ForeignKey("project.id"), nullable=False, autoincrement=False),
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("settings", Json, nullable=False),
    Column("guideline", Text, ForeignKey("text.digest"), nullable=False),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("project", "number"),
    sqlite_strict=True,
)
item = Table(
    "item",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("project", Integer, ForeignKey("project.id"), nullable=False),
    Column("comparison", Integer, ForeignKey("comparison.id"), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("draw", Integer, nullable=False),
    Column("strategy", Json, nullable=False),
    Column("propensity", Json, nullable=False),
    Column("needs", Json, nullable=False),
    Column("expected", Json),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("project", "comparison"),
    one_of("purpose", ("work", "gold", "trial")),
    Index("ix_item_purpose", "project", "purpose"),
    CheckConstraint("purpose = 'work' OR expected IS NOT NULL", name="expected"),
    sqlite_strict=True,
)
open_item = Table(
    "open_item",
    metadata,
    Column("item", Integer, ForeignKey("item.id"), nullable=False, autoincrement=False),
    Column("project", Integer, ForeignKey("project.id"), nullable=False),
    Column("rank", Integer, nullable=False),  # minus the priority: what comes first has the least
    Column("draw", Integer, nullable=False),
    PrimaryKeyConstraint("item"),
    Index(None, "project", "rank", "draw", "item"),
    sqlite_strict=True,
)
lease = Table(
    "lease",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("item", Integer, ForeignKey("item.id"), nullable=False),
    Column("annotator", Integer, ForeignKey("annotator.id"), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("shown_order", Json, nullable=False),
    Column("change", Integer, nullable=False),
    Column("at", Utc, nullable=False),
    Column("until", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    one_of("purpose", PURPOSES),
    Index(None, "item"),
    Index(None, "annotator", "item"),
    Index("ix_lease_until", "annotator", "until"),
    sqlite_strict=True,
)
lease_event = Table(
    "lease_event",
    metadata,
    Column("lease", Integer, ForeignKey("lease.id"), nullable=False, autoincrement=False),
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("outcome", Text, nullable=False),
    Column("judgement", Text),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("lease", "number"),
    one_of("outcome", OUTCOMES),
    CheckConstraint("outcome = 'released' OR judgement IS NOT NULL", name="judgement"),
    sqlite_strict=True,
)
note = Table(
    "note",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("lease", Integer, ForeignKey("lease.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, ForeignKey("text.digest"), nullable=False),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    one_of("kind", NOTES),
    Index(None, "lease"),
    sqlite_strict=True,
)
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("action", Text, nullable=False),
    Column("facts", Json, nullable=False),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    sqlite_strict=True,
)
account_change = Table(
    "account_change",
    metadata,
    Column("annotator", Integer, ForeignKey("annotator.id"), nullable=False, autoincrement=False),
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("facts", Json, nullable=False),
    Column("reason", Json, nullable=False),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("annotator", "number"),
    one_of("role", ROLES),
    one_of("state", STATES),
    sqlite_strict=True,
)
credential = Table(
    "credential",
    metadata,
    Column("annotator", Integer, ForeignKey("annotator.id"), nullable=False, autoincrement=False),
    Column("hash", Text, nullable=False),
    PrimaryKeyConstraint("annotator"),
    sqlite_strict=True,
)
session = Table(
    "session",
    metadata,
    Column("token", Text, nullable=False),
    Column("annotator", Integer, ForeignKey("annotator.id"), nullable=False),
    Column("until", Utc, nullable=False),
    PrimaryKeyConstraint("token"),
    sqlite_strict=True,
)
