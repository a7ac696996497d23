"""The shared loop: the LightningModule, the forward pass from Batch to Outputs, queues, optimizers, and what watches it."""
