"""Rounds: planned, run step by step through a durable journal, judged, and promoted or not."""
