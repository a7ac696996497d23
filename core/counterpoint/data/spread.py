"""A few samples that stand for a data set: the first ones are often of one class."""

import numpy as np

from counterpoint.data.stream import Stream

PARTS = 16  # of a stream that are begun


def evenly(size: int, most: int) -> np.ndarray:
    """int64: `most` numbers under `size`, evenly spread."""
    return np.arange(size) if size <= most else np.arange(most) * size // most


def spread(dataset, most: int) -> np.ndarray:
    """int64: places of up to `most` samples, evenly spread; of a stream, the first ones of parts that are."""
    if not isinstance(dataset, Stream) or len(dataset) <= most:
        return evenly(len(dataset), most)
    counts, starts = np.asarray(dataset.parts), dataset.stretches().starts()
    parts = evenly(len(counts), min(PARTS, most))
    each = -(-most // len(parts))
    return np.concatenate([starts[p] + np.arange(min(each, counts[p])) for p in parts])[:most]
