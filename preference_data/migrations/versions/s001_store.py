"""The store as first released: texts, people, comparisons, judgements, splits, requests, tombstones.

There is no way back: an older schema would lose what people said. Restore a backup instead.
"""

from alembic import op

from preference_data.migrations.triggers import refuse

revision = "s001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE text (
    digest TEXT NOT NULL,
    body {blob},
    CONSTRAINT pk_text PRIMARY KEY (digest),
    CONSTRAINT ck_text_digest CHECK (length(digest) = 64)
);
CREATE TABLE prompt (
    key TEXT NOT NULL,
    turns TEXT NOT NULL,
    CONSTRAINT pk_prompt PRIMARY KEY (key),
    CONSTRAINT ck_prompt_key CHECK (length(key) = 64)
);
CREATE TABLE annotator (
    id INTEGER NOT NULL,
    handle TEXT NOT NULL,
    identity TEXT,
    "group" TEXT,
    erased_at TEXT,
    CONSTRAINT pk_annotator PRIMARY KEY (id),
    CONSTRAINT uq_annotator_handle UNIQUE (handle),
    CONSTRAINT ck_annotator_erased CHECK (erased_at IS NULL OR identity IS NULL)
);
CREATE TABLE comparison (
    id INTEGER NOT NULL,
    key TEXT NOT NULL,
    prompt TEXT NOT NULL,
    source TEXT NOT NULL,
    slices TEXT NOT NULL,
    CONSTRAINT pk_comparison PRIMARY KEY (id),
    CONSTRAINT uq_comparison_key UNIQUE (key),
    CONSTRAINT fk_comparison_prompt FOREIGN KEY (prompt) REFERENCES prompt (key),
    CONSTRAINT ck_comparison_id CHECK (id > 0),
    CONSTRAINT ck_comparison_key CHECK (length(key) = 64)
);
CREATE TABLE completion (
    comparison INTEGER NOT NULL,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    origin TEXT NOT NULL,
    writer INTEGER,
    CONSTRAINT pk_completion PRIMARY KEY (comparison, position),
    CONSTRAINT fk_completion_comparison FOREIGN KEY (comparison) REFERENCES comparison (id),
    CONSTRAINT fk_completion_text FOREIGN KEY (text) REFERENCES text (digest),
    CONSTRAINT fk_completion_writer FOREIGN KEY (writer) REFERENCES annotator (id),
    CONSTRAINT ck_completion_position CHECK (position >= 0)
);
CREATE TABLE judgement (
    seq INTEGER NOT NULL,
    key TEXT NOT NULL,
    comparison INTEGER NOT NULL,
    annotator INTEGER NOT NULL,
    kind TEXT NOT NULL,
    opinion TEXT NOT NULL,
    rationale TEXT,
    edit TEXT,
    extra TEXT,
    flags TEXT NOT NULL,
    shown_order TEXT NOT NULL,
    guideline TEXT NOT NULL,
    supersedes TEXT NOT NULL,
    at TEXT NOT NULL,
    stored_at TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    CONSTRAINT pk_judgement PRIMARY KEY (seq),
    CONSTRAINT uq_judgement_key UNIQUE (key),
    CONSTRAINT uq_judgement_prev_hash UNIQUE (prev_hash),
    CONSTRAINT fk_judgement_comparison FOREIGN KEY (comparison) REFERENCES comparison (id),
    CONSTRAINT fk_judgement_annotator FOREIGN KEY (annotator) REFERENCES annotator (id),
    CONSTRAINT fk_judgement_rationale FOREIGN KEY (rationale) REFERENCES text (digest),
    CONSTRAINT fk_judgement_edit FOREIGN KEY (edit) REFERENCES text (digest),
    CONSTRAINT fk_judgement_extra FOREIGN KEY (extra) REFERENCES text (digest),
    CONSTRAINT ck_judgement_seq CHECK (seq > 0),
    CONSTRAINT ck_judgement_key CHECK (length(key) = 64),
    CONSTRAINT ck_judgement_hash CHECK (length(hash) = 64),
    CONSTRAINT ck_judgement_kind CHECK (kind IN ('pairwise', 'thumb', 'rating', 'ranking'))
);
CREATE TABLE split_assignment (
    prompt_key TEXT NOT NULL,
    cluster TEXT NOT NULL,
    split TEXT NOT NULL,
    signature {blob} NOT NULL,
    seq INTEGER NOT NULL,
    CONSTRAINT pk_split_assignment PRIMARY KEY (prompt_key),
    CONSTRAINT uq_split_assignment_seq UNIQUE (seq),
    CONSTRAINT ck_split_assignment_split CHECK (split IN ('train', 'select', 'test'))
);
CREATE TABLE request (
    id INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    "by" TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_request PRIMARY KEY (id),
    CONSTRAINT uq_request_key UNIQUE (key),
    CONSTRAINT ck_request_kind CHECK (
        kind IN ('import', 'freeze', 'round', 'promote', 'rollback', 'threshold', 'generate', 'explain')
    )
);
CREATE TABLE request_event (
    request INTEGER NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    "by" TEXT NOT NULL,
    message TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_request_event PRIMARY KEY (request, number),
    CONSTRAINT fk_request_event_request FOREIGN KEY (request) REFERENCES request (id),
    CONSTRAINT ck_request_event_state CHECK (state IN ('filed', 'claimed', 'done', 'failed'))
);
CREATE TABLE tombstone (
    id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL,
    CONSTRAINT pk_tombstone PRIMARY KEY (id),
    CONSTRAINT ck_tombstone_kind CHECK (kind IN ('text', 'person'))
);
"""
_ONLY_GROW = (
    "prompt", "comparison", "completion", "judgement", "split_assignment", "request", "request_event", "tombstone",
)  # fmt: skip
# Only a text may lose its body, once and for ever; a person may lose a handle and an identity. No row goes.
_BRINGS_BACK = "NEW.digest <> OLD.digest OR NEW.body IS NOT NULL"


def upgrade() -> None:
    """Make the tables and the triggers that keep them append-only."""
    sqlite = op.get_context().dialect.name == "sqlite"
    for statement in _TABLES.format(blob="BLOB" if sqlite else "BYTEA").strip().removesuffix(";").split(";\n"):
        op.execute(f"{statement} STRICT" if sqlite else statement)
    op.execute("CREATE INDEX ix_judgement_comparison ON judgement (comparison)")
    if not sqlite:
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% only grows: % refused', TG_TABLE_NAME, TG_OP; END $$"
        )
    for table in _ONLY_GROW:
        refuse(table, "UPDATE")
        refuse(table, "DELETE")
    refuse("text", "UPDATE", _BRINGS_BACK)
    refuse("text", "DELETE")
    refuse("annotator", "DELETE")
