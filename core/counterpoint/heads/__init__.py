"""Heads: from what an encoder returns to the contrasted embedding z."""
