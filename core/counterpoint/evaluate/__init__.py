"""A data set seen by frozen encoders, and the evaluators that score what they see."""
