"""Run folders: their files written whole, checkpoints, processes, and whether a run may be gone on with."""
