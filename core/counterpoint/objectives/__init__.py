"""Objectives: one family a file, on what objective.py says an objective is; what several share is in mechanisms/."""
