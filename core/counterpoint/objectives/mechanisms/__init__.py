"""What several objectives share: stacks of rows, temperatures, predictors, decoders, similarities."""
