"""Packs: found, checked against the contract and contained; every component of them and of the core by name."""
