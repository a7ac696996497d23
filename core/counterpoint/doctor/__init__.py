"""What is wrong with a recipe, its data or a run: each room has checks that give findings, each with a remedy."""
