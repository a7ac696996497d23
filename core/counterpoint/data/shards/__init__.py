"""Samples in tar archives, in the layout of WebDataset."""
