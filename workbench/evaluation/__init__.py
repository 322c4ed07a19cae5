"""Evaluation: suites of items with a scorer. One row per item, kept in the ledger."""
