"""Models: load, forward, sample. transformers and PEFT, nothing of TRL or Ray."""
