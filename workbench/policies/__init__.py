"""Policies: their weights, lineage, and the champion."""
