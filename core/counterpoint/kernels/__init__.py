"""The memory-linear InfoNCE and its kin: one primitive, in a dense, a tiled and a Triton form."""

from counterpoint.kernels.dispatch import as_autocast, products
from counterpoint.kernels.divided import divided
from counterpoint.kernels.info_nce import Grouped, contrast, info_nce
from counterpoint.kernels.sigmoid import softplus_sums
from counterpoint.kernels.softmax import softmax_stats

__all__ = ["Grouped", "as_autocast", "contrast", "divided", "info_nce", "products", "softmax_stats", "softplus_sums"]
