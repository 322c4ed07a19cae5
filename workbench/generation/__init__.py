"""Completions from policies, and comparisons made of them for people to judge."""
