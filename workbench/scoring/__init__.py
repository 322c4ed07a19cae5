"""Log-probabilities of pairs under frozen policies, computed once per example and policy."""
