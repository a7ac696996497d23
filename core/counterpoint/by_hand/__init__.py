"""Objectives called from Python, without a recipe: bare tensors become Outputs, and what is lacking is said."""
