"""What a person can do about an error of torch's that ends a run."""

from __future__ import annotations

import torch

from counterpoint.recipe import Recipe
from counterpoint.runs import processes
from counterpoint.runs.ranks import is_first_rank
from counterpoint.runs.run import Run

LOST = ("by peer", "Connection refused", "connect() timed out", "Socket Timeout", "Broken pipe")  # of a collective


def remedy(error: Exception, recipe: Recipe, loop, run: Run) -> str | None:
    """What the user can do about an error of torch's, when that is known."""
    text = str(error)
    again = f"counterpoint fit --resume {run.folder if is_first_rank() else 'latest'}"
    if (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
    ):  # of a GPU, of the host
        kept = not is_first_rank() or any(run.folder.glob("checkpoints/**/*.ckpt"))
        return _out_of_memory(recipe, loop.trainer, again if kept else None, text.partition("\n")[0])
    if "not used in producing the loss" in text:
        unused = [name for name, p in loop.named_parameters() if p.requires_grad and p.grad is None]
        return (
            f"with several processes every weight that learns must take part in the loss; {', '.join(unused[:8])}: not used. "
            "Freeze them with tune, or set trainer.strategy: ddp_find_unused_parameters_true, which is slower"
        )
    if "without overflow" in text:
        return f"the optimizer has a number that the weights cannot hold: lower optimizer.lr ({text[:200]})"
    if "loading state_dict for Loop" in text or "loaded state dict" in text:
        return f"the checkpoint in {run.folder} does not fit the recipe: {' '.join(text.split())[:300]}"
    if (who := processes.dead_soon() if any(words in text for words in LOST) else processes.dead()) is not None:
        return f"{who}; go on with: {again}"
    if any(words in text for words in LOST):
        return f"another process of this run has died; go on with: {again}"
    return None


def _out_of_memory(recipe: Recipe, trainer, again: str | None, reason: str) -> str:
    """The largest power of two below what was encoded at a time, with the command; of one sample there is no part."""
    size = recipe.loader.micro_batch or -(-recipe.loader.batch // trainer.world_size)
    if size == 1:
        remedy = "one sample at a time is too much: take a smaller encoder, shorter inputs, or fewer views"
    else:
        smaller = f"loader.micro_batch={1 << ((size - 1).bit_length() - 1)}, which leaves the gradient as it is"
        remedy = f"go on with {again} {smaller}" if again else f"nothing is lost yet: start again with {smaller}"
    return f"out of memory at {trainer.global_step} steps; {remedy} ({reason[:200]})"
