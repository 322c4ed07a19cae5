"""The history of the preference store's schema, run by Alembic. Steps are appended, never edited."""
