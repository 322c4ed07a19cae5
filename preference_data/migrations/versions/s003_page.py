"""What the page needs: the queue in the order it is read, admins, notes on items, the audit log."""

from alembic import op

from preference_data.migrations.triggers import refuse

revision = "s003"
down_revision = "s002"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE account_change (
    annotator INTEGER NOT NULL,
    number INTEGER NOT NULL,
    role TEXT NOT NULL,
    state TEXT NOT NULL,
    facts TEXT NOT NULL,
    reason TEXT NOT NULL,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_account_change PRIMARY KEY (annotator, number),
    CONSTRAINT fk_account_change_annotator FOREIGN KEY (annotator) REFERENCES annotator (id),
    CONSTRAINT ck_account_change_role CHECK (role IN ('annotator', 'lead', 'admin')),
    CONSTRAINT ck_account_change_state CHECK (state IN ('active', 'paused', 'closed'))
);
CREATE TABLE note (
    id INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_note PRIMARY KEY (id),
    CONSTRAINT fk_note_lease FOREIGN KEY (lease) REFERENCES lease (id),
    CONSTRAINT fk_note_body FOREIGN KEY (body) REFERENCES text (digest),
    CONSTRAINT ck_note_kind CHECK (kind IN ('comment', 'returned'))
);
CREATE TABLE audit (
    id INTEGER NOT NULL,
    action TEXT NOT NULL,
    facts TEXT NOT NULL,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_audit PRIMARY KEY (id)
);
"""
_BEFORE = (
    "DROP TABLE account_change",  # nothing wrote it yet
    "DROP INDEX ix_open_item_project",
    "ALTER TABLE open_item RENAME COLUMN priority TO rank",
    "UPDATE open_item SET rank = -rank",
    "DROP INDEX ix_lease_annotator",
)
_INDEXES = (
    "CREATE INDEX ix_open_item_project ON open_item (project, rank, draw, item)",
    "CREATE INDEX ix_lease_annotator ON lease (annotator, item)",
    "CREATE INDEX ix_lease_until ON lease (annotator, until)",
    "CREATE INDEX ix_item_purpose ON item (project, purpose)",
    "CREATE INDEX ix_note_lease ON note (lease)",
)


def upgrade() -> None:
    """Change the tables, and let the new ones only grow."""
    sqlite = op.get_context().dialect.name == "sqlite"
    for statement in _BEFORE:
        op.execute(statement)
    for statement in _TABLES.strip().removesuffix(";").split(";\n"):
        op.execute(f"{statement} STRICT" if sqlite else statement)
    for index in _INDEXES:
        op.execute(index)
    for table in ("account_change", "note", "audit"):
        refuse(table, "UPDATE")
        refuse(table, "DELETE")
