"""The history of the ledger's schema, run by Alembic. Steps are appended, never edited."""
