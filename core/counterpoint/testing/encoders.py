"""What holds for every encoder. Dimensions: n rows, H width of h, L tokens, C width of a token."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from counterpoint.batch import Features
from counterpoint.randomness import seed_all
from counterpoint.testing.device import check_moves, other_device
from counterpoint.testing.finding import Broken
from counterpoint.testing.material import Trial
from counterpoint.towers.tower import encode

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
ROUGH = 0.2  # relative distance between bfloat16 and float32


def fits(trial: Trial) -> Features:
    with torch.no_grad():
        return encode(trial.build().eval(), trial.view)


def gives_the_shapes_it_declares(trial: Trial) -> None:
    encoder = trial.build().eval()
    width = getattr(encoder, "width", None)
    if type(width) is not int:
        raise Broken(
            "it does not say its width",
            expected="an int attribute `width` = H, the numbers in a row of h",
            got=repr(width),
            mend="set self.width in __init__",
        )
    with torch.no_grad():
        made = encode(encoder, trial.view)
    n = len(trial.view)
    if not isinstance(made.h, Tensor) or made.h.shape != (n, width):
        raise Broken(
            "h has another shape than it declares",
            expected=f"({n}, {width}): a row a sample, and `width` numbers in it",
            got=str(tuple(made.h.shape)) if isinstance(made.h, Tensor) else type(made.h).__name__,
            mend="return h as (n, width), or set width to what is returned",
        )
    _check_gives(encoder, made, n)


def _check_gives(encoder: nn.Module, made: Features, n: int) -> None:
    gives = frozenset(getattr(encoder, "gives", ()))
    there = {name for name in ("tokens", "map") if getattr(made, name) is not None} | (
        {"layers"} if made.layers else set()
    )
    if there != gives & {"tokens", "map", "layers"}:
        raise Broken(
            "`gives` is not what it returns beside h",
            expected=f"gives = {sorted(there)}",
            got=str(sorted(gives)),
            mend="set the attribute `gives` to the names of what Features holds",
        )
    width = encoder.width
    wanted = {
        "tokens": (made.tokens, 3, -1, getattr(encoder, "token_width", width)),
        "map": (made.map, None, 1, getattr(encoder, "map_width", width)),
    }
    for name, (value, dims, axis, size) in wanted.items():
        if value is None:
            continue
        if len(value) != n or value.shape[axis] != size or (dims and value.ndim != dims):
            raise Broken(
                f"its {name} have another shape than it declares",
                expected=f"{n} rows, and {size} numbers along dimension {axis}",
                got=str(tuple(value.shape)),
                mend=f"correct what is returned, or the attribute {name.removesuffix('s')}_width",
            )


def gives_finite_floats(trial: Trial) -> None:
    h = fits(trial).h
    wanted = trial.view.data.dtype if trial.view.data.is_floating_point() else torch.float32
    if h.dtype != wanted or not h.isfinite().all():
        raise Broken(
            "h is not finite, or has another type than its data",
            expected=f"finite {wanted}",
            got=f"{h.dtype}, {int((~h.isfinite()).sum())} of {h.numel()} numbers not finite",
            mend="look for a division by zero, and for `.float()`, `.double()` and numpy on the way",
        )


def lets_a_gradient_reach_every_parameter(trial: Trial) -> None:
    encoder = trial.build().train()
    wanted = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    if not wanted:
        return
    made = encode(encoder, trial.view)
    outputs = [t for t in (made.h, made.tokens, made.map, *made.layers) if t is not None and t.is_floating_point()]
    total = sum((t * torch.randn_like(t)).sum() for t in outputs)  # weights, since a normalised row has a fixed sum
    without = list(wanted)
    if total.requires_grad:
        found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        without = [name for name, gradient in zip(wanted, found) if gradient is None]
    if without:
        raise Broken(
            f"{len(without)} of {len(wanted)} parameters get no gradient",
            expected="every parameter takes part in h, tokens, map or layers: several processes wait for all of them",
            got=", ".join(without[:4]) + (" ..." if len(without) > 4 else ""),
            mend="remove them, freeze them (requires_grad_(False)), or look for detach() and no_grad()",
        )


def embeds_each_row_alone_in_evaluation(trial: Trial) -> None:
    """The same h in another order of the batch, and in a batch of one."""
    encoder, view = trial.build().eval(), trial.view
    order = torch.arange(len(view)).flip(0)
    with torch.no_grad():
        h = encode(encoder, view).h
        for what, rows in (("in another order", order), ("alone", torch.tensor([0]))):
            other = encode(encoder, view[rows]).h
            if not torch.allclose(other, h[rows], **CLOSE):
                raise Broken(
                    f"in evaluation, h of a row is another one {what}",
                    expected="h of a row depends on that row alone",
                    got=f"a difference of {(other - h[rows]).abs().max():.2g}",
                    mend="look for statistics over the batch, and for a reshape that mixes rows",
                )


def is_deterministic_in_evaluation(trial: Trial) -> None:
    encoder = trial.build().eval()
    with torch.no_grad():
        seed_all(1)
        once = encode(encoder, trial.view).h
        seed_all(2)
        again = encode(encoder, trial.view).h
    if not torch.equal(once, again):
        raise Broken(
            "in evaluation, the same rows give another h the second time",
            expected="equal values",
            got=f"a difference of {(once - again).abs().max():.2g}",
            mend="use nn.Dropout, which rests in evaluation, or look at self.training; keep no state in forward",
        )


def is_saved_and_loaded_whole(trial: Trial) -> None:
    """state_dict into another one of the same parameters, whose initial weights are others."""
    encoder, other = trial.build().eval(), trial.build().eval()
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1)
        other.load_state_dict(encoder.state_dict())
        if not torch.equal(encode(encoder, trial.view).h, encode(other, trial.view).h):
            raise Broken(
                "saved and loaded, it is another encoder",
                expected="state_dict() holds all that h depends on",
                got="another h after load_state_dict",
                mend="make it a parameter or a buffer (register_buffer, persistent)",
            )


def moves_to_another_device(trial: Trial) -> None:
    """Whole; where there is a GPU, with the same h but for rounding."""
    encoder, device = trial.build().eval(), other_device()
    check_moves(encoder)
    if device is None:
        return
    with torch.no_grad():
        here = encode(encoder, trial.view).h.float()
        there = encode(encoder.to(device), trial.view.to(device)).h.float().cpu()
    distance = ((there - here).norm() / here.norm().clamp(min=1e-12)).item()
    if not distance < ROUGH / 10:
        raise Broken(
            f"on {device} h is another one",
            expected=f"a relative distance below {ROUGH / 10} to the CPU",
            got=f"{distance:.2g}",
            mend="make new tensors on the device of the data: torch.arange(n, device=data.device)",
        )


def stays_close_in_bfloat16(trial: Trial) -> None:
    encoder = trial.build().eval()
    with torch.no_grad():
        exact = encode(encoder, trial.view).h.float()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encode(encoder, trial.view).h.float()
    distance = ((rounded - exact).norm() / exact.norm().clamp(min=1e-12)).item()
    if not distance < ROUGH:
        raise Broken(
            "under bfloat16 autocast h is another one",
            expected=f"a relative distance below {ROUGH} to float32",
            got=f"{distance:.2g}",
            mend="compute sums, logarithms and norms in float32: x.float()",
        )


def checks(trial: Trial) -> Iterator:
    yield from (
        gives_the_shapes_it_declares,
        gives_finite_floats,
        lets_a_gradient_reach_every_parameter,
        embeds_each_row_alone_in_evaluation,
        is_deterministic_in_evaluation,
        is_saved_and_loaded_whole,
        moves_to_another_device,
        stays_close_in_bfloat16,
    )
