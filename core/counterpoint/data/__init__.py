"""From files to a Batch: datasets, readers and their guard, the order of samples, collation and loading."""
