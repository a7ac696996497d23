"""Towers: an encoder and its head, built from a recipe, stored, loaded, frozen, averaged, side by side."""
