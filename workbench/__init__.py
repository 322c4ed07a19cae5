"""What we do with what people said: score, optimise, evaluate, gate, promote."""
