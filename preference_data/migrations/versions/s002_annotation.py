"""Annotation: projects, items, leases, accounts."""

from alembic import op

from preference_data.migrations.triggers import refuse

revision = "s002"
down_revision = "s001"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE project (
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    mode TEXT NOT NULL,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_project PRIMARY KEY (id),
    CONSTRAINT uq_project_name UNIQUE (name),
    CONSTRAINT ck_project_mode CHECK (mode IN ('pairwise', 'rating', 'thumb', 'ranking'))
);
CREATE TABLE project_change (
    project INTEGER NOT NULL,
    number INTEGER NOT NULL,
    settings TEXT NOT NULL,
    guideline TEXT NOT NULL,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_project_change PRIMARY KEY (project, number),
    CONSTRAINT fk_project_change_project FOREIGN KEY (project) REFERENCES project (id),
    CONSTRAINT fk_project_change_guideline FOREIGN KEY (guideline) REFERENCES text (digest)
);
CREATE TABLE item (
    id INTEGER NOT NULL,
    project INTEGER NOT NULL,
    comparison INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    priority INTEGER NOT NULL,
    draw INTEGER NOT NULL,
    strategy TEXT NOT NULL,
    propensity TEXT NOT NULL,
    needs TEXT NOT NULL,
    expected TEXT,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_item PRIMARY KEY (id),
    CONSTRAINT uq_item_project UNIQUE (project, comparison),
    CONSTRAINT fk_item_project FOREIGN KEY (project) REFERENCES project (id),
    CONSTRAINT fk_item_comparison FOREIGN KEY (comparison) REFERENCES comparison (id),
    CONSTRAINT ck_item_purpose CHECK (purpose IN ('work', 'gold', 'trial')),
    CONSTRAINT ck_item_expected CHECK (purpose = 'work' OR expected IS NOT NULL)
);
CREATE TABLE open_item (
    item INTEGER NOT NULL,
    project INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    draw INTEGER NOT NULL,
    CONSTRAINT pk_open_item PRIMARY KEY (item),
    CONSTRAINT fk_open_item_item FOREIGN KEY (item) REFERENCES item (id),
    CONSTRAINT fk_open_item_project FOREIGN KEY (project) REFERENCES project (id)
);
CREATE TABLE lease (
    id INTEGER NOT NULL,
    item INTEGER NOT NULL,
    annotator INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    shown_order TEXT NOT NULL,
    change INTEGER NOT NULL,
    at TEXT NOT NULL,
    until TEXT NOT NULL,
    CONSTRAINT pk_lease PRIMARY KEY (id),
    CONSTRAINT fk_lease_item FOREIGN KEY (item) REFERENCES item (id),
    CONSTRAINT fk_lease_annotator FOREIGN KEY (annotator) REFERENCES annotator (id),
    CONSTRAINT ck_lease_purpose CHECK (purpose IN ('work', 'gold', 'trial', 'repeat'))
);
CREATE TABLE lease_event (
    lease INTEGER NOT NULL,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    judgement TEXT,
    at TEXT NOT NULL,
    CONSTRAINT pk_lease_event PRIMARY KEY (lease, number),
    CONSTRAINT fk_lease_event_lease FOREIGN KEY (lease) REFERENCES lease (id),
    CONSTRAINT ck_lease_event_outcome CHECK (outcome IN ('judged', 'skipped', 'late', 'released')),
    CONSTRAINT ck_lease_event_judgement CHECK (outcome = 'released' OR judgement IS NOT NULL)
);
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
    CONSTRAINT ck_account_change_role CHECK (role IN ('annotator', 'lead')),
    CONSTRAINT ck_account_change_state CHECK (state IN ('active', 'paused', 'closed'))
);
CREATE TABLE credential (
    annotator INTEGER NOT NULL,
    hash TEXT NOT NULL,
    CONSTRAINT pk_credential PRIMARY KEY (annotator),
    CONSTRAINT fk_credential_annotator FOREIGN KEY (annotator) REFERENCES annotator (id)
);
CREATE TABLE session (
    token TEXT NOT NULL,
    annotator INTEGER NOT NULL,
    until TEXT NOT NULL,
    CONSTRAINT pk_session PRIMARY KEY (token),
    CONSTRAINT fk_session_annotator FOREIGN KEY (annotator) REFERENCES annotator (id)
);
"""
_INDEXES = (
    "CREATE INDEX ix_open_item_project ON open_item (project, priority, draw)",
    "CREATE INDEX ix_lease_item ON lease (item)",
    "CREATE INDEX ix_lease_annotator ON lease (annotator, id)",
)
_ONLY_GROW = ("project", "project_change", "item", "lease_event", "account_change")
# A lease may last longer than planned, while somebody is at it; nothing else about it changes.
_REWRITES = " OR ".join(
    f"NEW.{column} <> OLD.{column}"
    for column in ("id", "item", "annotator", "purpose", "shown_order", "change", "at")
) + " OR NEW.until < OLD.until"  # fmt: skip


def upgrade() -> None:
    """Make the tables, and the triggers of those that only grow."""
    sqlite = op.get_context().dialect.name == "sqlite"
    for statement in _TABLES.strip().removesuffix(";").split(";\n"):
        op.execute(f"{statement} STRICT" if sqlite else statement)
    for index in _INDEXES:
        op.execute(index)
    for table in _ONLY_GROW:
        refuse(table, "UPDATE")
        refuse(table, "DELETE")
    refuse("lease", "UPDATE", _REWRITES)
    refuse("lease", "DELETE")
