"""Encoders that belong to no one domain: of text, and baselines."""
