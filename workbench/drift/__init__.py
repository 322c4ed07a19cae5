"""What was measured, kept for ever, and what it says about drift."""
