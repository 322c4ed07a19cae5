"""Training: batches, objective, wiring proof, and the one place that knows TRL."""
