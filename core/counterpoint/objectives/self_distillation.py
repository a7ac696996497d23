"""Self-distillation for further pre-training: the representation stays near that of a teacher."""

from __future__ import annotations

from torch import Tensor

from counterpoint.batch import Encoded, Outputs
from counterpoint.errors import ComponentError
from counterpoint.objectives.objective import Needs, Objective, mean


class SelfDistillation(Objective):
    """The distillation term of self-distillation for further pre-training (Lee et al., ICLR 2023, eq. 4).

        loss = mean over views of  1/n sum_i || h_i - h'_i ||^2

    a sum over the H dimensions of the representations h (student) and h' (teacher, detached) of the same view, not
    normalised. The authors take the layer-normalised first token of the input that is not masked, which is h of an encoder
    that pools so. The term joins a reconstruction loss of masked views by `weights` (1 each): give the views that are not
    masked a role and name it here. The teacher is what a first round on the target data made, and the student of the second
    round begins at the weights that the first began at: `teacher: {stage: first}` and `start` of a stage (docs/stages.md).

    role  of the views that are compared; None: all but the negatives
    """

    unit = False

    def __init__(self, *, role: str | None = None):
        super().__init__()
        self.role = role

    def needs(self) -> Needs:
        return Needs(teacher=True, roles=frozenset({self.role} if self.role else ()))

    def loss(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        seen = {e.view: e for e in outputs.views(role=self.role, of="teacher")}
        views = [e for e in outputs.views(role=self.role) if e.view in seen and len(e.row)]
        return mean([self._distance(e, seen[e.view]) for e in views], outputs), {}

    @staticmethod
    def _distance(student: Encoded, teacher: Encoded) -> Tensor:
        if student.h.shape != teacher.h.shape:
            raise ComponentError(
                f"objective 'selfdistill_fpt': h of {student.modality!r} is {student.h.shape[1]} wide, the teacher's "
                f"{teacher.h.shape[1]}; it has to be an encoder of the same form"
            )
        difference = student.h.to(student.z.dtype) - teacher.h.to(student.z.dtype)
        return difference.square().sum(1).mean()
