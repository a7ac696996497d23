"""What holds for every objective, on outputs made to its needs. Values and gradients are compared in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from counterpoint.batch import Outputs
from counterpoint.objectives.objective import Needs
from counterpoint.randomness import seed_all
from counterpoint.testing.finding import Broken
from counterpoint.testing.material import Trial
from counterpoint.testing.scene import B, scene, shuffled, tensors

SIDES = {"momentum": "the momentum encoders", "teacher": "the teacher"}


def called(trial: Trial, outputs: Outputs) -> Tensor:
    """The loss of an objective that was built anew, with the generators seeded as the loop seeds them."""
    objective = trial.build().double()
    seed_all(3)
    return objective(outputs)[0]


def whole(trial: Trial) -> Outputs:
    return scene(trial.build().needs())


def gradients(loss: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    if not wanted or not loss.requires_grad:
        return [torch.zeros_like(t) for t in wanted]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


def says_what_it_needs(trial: Trial) -> None:
    needs = trial.build().needs()
    if not isinstance(needs, Needs):
        raise Broken(
            "needs() does not say what it needs",
            expected="a Needs (counterpoint.objectives.objective)",
            got=type(needs).__name__,
            mend="return Needs(pairs='all', batch=2)",
        )


def gives_a_finite_loss_and_gradient(trial: Trial) -> None:
    outputs, objective = whole(trial), trial.build().double()
    seed_all(3)
    loss, parts = objective(outputs)
    finite = [g.isfinite().all() for g in gradients(loss, tensors(outputs.student))]
    if loss.ndim or not loss.isfinite() or not all(finite):
        raise Broken(
            "its loss or its gradient is not one finite number",
            expected="a finite scalar, with finite gradients",
            got=f"{loss.tolist()}, {len(finite) - sum(map(bool, finite))} of {len(finite)} gradients not finite",
            mend="look for the logarithm, root or quotient of zero",
        )
    if attached := [name for name, part in parts.items() if part.requires_grad]:
        raise Broken(
            "a part that is logged holds the graph",
            expected="parts without a gradient",
            got=", ".join(attached),
            mend="part.detach()",
        )


def teaches_the_encoder(trial: Trial) -> None:
    outputs = whole(trial)
    if not any(g.any() for g in gradients(called(trial, outputs), tensors(outputs.student))):
        raise Broken(
            "no gradient reaches the student",
            expected="a gradient in z, or in whatever the objective looks at",
            got="zeros",
            mend="look for detach(), no_grad(), argmax and comparisons on the way",
        )


def does_not_depend_on_the_order_of_the_batch(trial: Trial) -> None:
    loss, other = called(trial, whole(trial)), called(trial, shuffled(whole(trial)))
    if not torch.allclose(loss, other, rtol=1e-7, atol=1e-9):
        raise Broken(
            "the order of the batch changes the loss",
            expected=f"{loss.item():.6g} whatever the order of samples and rows",
            got=f"{other.item():.6g} in another order",
            mend="align rows with outputs.pairs() or outputs.stack(); rows of two views need not be in one order",
        )


def is_zero_for_nothing(trial: Trial) -> None:
    """A batch whose samples have no row in any view, as when a modality is missing; then with one sample."""
    needs = trial.build().needs()
    for what, rows in (("no row at all", []), ("a single sample", [2])):
        outputs = scene(needs, rows)
        loss = called(trial, outputs)
        reached = all(g.isfinite().all() for g in gradients(loss, tensors(outputs.student)))
        if not loss.isfinite() or not reached or (not rows and loss != 0):
            raise Broken(
                f"a batch with {what} of {B} breaks it",
                expected="a loss of zero" if not rows else "a finite loss, with finite gradients",
                got=f"{loss.item():.4g}" + ("" if reached else ", and a gradient that is not finite"),
                mend="a mean over nothing is NaN: return outputs.zero(), or use counterpoint.objectives.objective.mean",
            )


def teaches_no_momentum_encoder_and_no_teacher(trial: Trial) -> None:
    outputs = whole(trial)
    loss = called(trial, outputs)
    for side, who in SIDES.items():
        if any(g.any() for g in gradients(loss, tensors(getattr(outputs, side)))):
            raise Broken(
                f"a gradient reaches {who}",
                expected="they follow the student and do not learn",
                got="a gradient in what they make",
                mend="define loss(outputs) and leave forward() to Objective, which detaches them",
            )


def checks(trial: Trial) -> Iterator:
    yield from (
        says_what_it_needs,
        gives_a_finite_loss_and_gradient,
        teaches_the_encoder,
        does_not_depend_on_the_order_of_the_batch,
        is_zero_for_nothing,
        teaches_no_momentum_encoder_and_no_teacher,
    )
