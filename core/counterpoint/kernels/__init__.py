"""The memory-linear InfoNCE and its kin: one primitive, in a dense and in a tiled form."""

from counterpoint.kernels.info_nce import Grouped, contrast, info_nce
from counterpoint.kernels.sigmoid import softplus_sums
from counterpoint.kernels.softmax import softmax_stats

__all__ = ["Grouped", "contrast", "info_nce", "softmax_stats", "softplus_sums"]
