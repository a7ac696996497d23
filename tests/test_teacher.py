"""A trained run as frozen teacher: it sees the students' views, and is no part of what is trained or saved."""

import json
import shutil

import pytest
import torch

from building import assert_same_state, loop, towers, train
from counterpoint.batch import Batch, View
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.towers.teacher import Teacher
from counterpoint_toy.parts import Follow, Pairs
from test_fit import RECIPE, command, same

pytestmark = pytest.mark.xdist_group("teacher")  # what they share is made once

ROWS = torch.arange(7)


def taught(micro=None, modalities=("signal", "words"), norm=False, dim=8):
    objectives = {"nce": InfoNCE(), "follow": Follow()}
    return loop(objectives, norm=norm, micro=micro, teacher=Teacher(towers(modalities, norm, dim)))


def some_batch():
    signal = View("signal", torch.randn(7, 2, 64, generator=torch.Generator().manual_seed(0)), ROWS)
    words = View("words", torch.arange(10).view(5, 2), torch.tensor([0, 1, 3, 4, 6]))
    return Batch({"signal": signal, "words": words}, ROWS + 20)


def test_the_teacher_sees_the_views_of_the_students():
    """Its weights are those of the students here, which have no dropout: so are its embeddings, without a gradient."""
    for micro in (None, 3):
        student, _, teacher = taught(micro).forward_pass.encode(some_batch(), 5)
        assert [(e.modality, e.view) for e in teacher] == [(e.modality, e.view) for e in student]
        for mine, theirs in zip(student, teacher, strict=True):
            torch.testing.assert_close(mine.z, theirs.z)
            assert torch.equal(mine.row, theirs.row) and not theirs.z.requires_grad


def test_micro_batches_show_the_teacher_the_same():
    whole, parts = (taught(micro, norm=True, dim=5).forward_pass.encode(some_batch(), 5)[2] for micro in (None, 3))
    for mine, theirs in zip(whole, parts, strict=True):
        assert mine.z.shape[1] == 5
        torch.testing.assert_close(mine.z, theirs.z)


def test_a_modality_that_the_teacher_or_the_batch_lacks():
    module, batch = taught(modalities=("words",)), some_batch()
    assert [(e.modality, e.view) for e in module.forward_pass.encode(batch, 0)[2]] == [("words", 2)]
    del batch.inputs["words"]
    (absent,) = module.forward_pass.encode(batch, 0)[2]
    assert absent.z.shape == (0, 8) and absent.view == 2
    loss, _ = module.contrast(module.forward_pass.outputs(batch, 0, 0))
    loss.backward()


def test_the_teacher_is_neither_trained_nor_saved():
    module = taught(norm=True)
    kept = module.teacher.towers
    before = {name: {k: v.clone() for k, v in tower.state_dict().items()} for name, tower in kept.items()}
    train(module, Pairs(size=32, missing=0.3), batch=16)
    assert not any(torch.is_grad_enabled() and p.requires_grad for tower in kept.values() for p in tower.parameters())
    assert all(torch.equal(v, before[name][k]) for name, tower in kept.items() for k, v in tower.state_dict().items())
    assert not any(part.training for tower in kept.values() for part in tower.modules())
    assert not any("teacher" in name for name in module.state_dict())
    assert not list(module.teacher.parameters())


def test_the_teacher_follows_the_loop_to_its_precision():
    module = taught().double()
    assert {p.dtype for tower in module.teacher.towers.values() for p in tower.parameters()} == {torch.float64}


def test_a_resumed_run_has_the_same_teacher(tmp_path):
    from counterpoint.runs.checkpoints import Checkpoints

    data = Pairs(size=32, missing=0.3)
    straight, short, resumed = taught(norm=True), taught(norm=True), taught(norm=True)
    train(straight, data, batch=16, epochs=3)
    train(short, data, batch=16, epochs=1, callbacks=[Checkpoints(tmp_path)])
    train(resumed, data, batch=16, epochs=3, ckpt=tmp_path / "step-00000002.ckpt")
    assert_same_state(straight, resumed)


# --- from the command line -------------------------------------------------------------------------------------------

TAUGHT = RECIPE.replace("objective:", "teacher: {run: latest}\nobjective:\n  follow: {use: toy.follow}").replace(
    "max_epochs: 4", "max_epochs: 2"
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A folder with a trained run, `pairs-1`, whose heads are wider."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "recipe.yaml").write_text(RECIPE.replace("dim: 8", "dim: 12"))
    done = command(folder, "fit", "recipe.yaml", "evaluate=[]", "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(teacher, tmp_path):
    shutil.copytree(teacher / "runs/pairs-1", tmp_path / "runs/pairs-1")
    (tmp_path / "taught.yaml").write_text(TAUGHT.replace("name: pairs", "name: taught"))
    return tmp_path


def test_a_run_with_a_teacher_is_killed_and_resumed(folder):
    straight = command(folder, "fit", "taught.yaml")
    assert straight.returncode == 0, straight.stderr
    run = folder / "runs/taught-1"
    facts = json.loads((run / "run.json").read_text())["teacher"]["train"]
    assert facts["run"] == "runs/pairs-1" and len(facts["sha256"]) == 64
    assert "run: runs/pairs-1" in (run / "recipe.yaml").read_text()  # what `latest` was then
    expected = torch.load(max(run.glob("checkpoints/*.ckpt")), weights_only=True)["state_dict"]
    assert not any("teacher" in name for name in expected)
    chaos = {"TOY_STEP": "3", "TOY_SIGNAL": "SIGKILL"}
    killed = command(folder, "fit", "taught.yaml", "teacher.run=pairs-1", env=chaos)  # `latest` is taught-1 now
    assert killed.returncode == -9
    shutil.move(folder / "runs/pairs-1", folder / "elsewhere")
    lost = command(folder, "fit", "--resume", "taught-2")
    assert lost.returncode == 2 and "teacher.run" in lost.stderr and "no run there" in lost.stderr
    resumed = command(folder, "fit", "--resume", "taught-2", "teacher.run=elsewhere")
    assert resumed.returncode == 0, resumed.stderr
    got = torch.load(max((folder / "runs/taught-2").glob("checkpoints/*.ckpt")), weights_only=True)["state_dict"]
    assert not same(expected, got)


def test_a_teacher_that_changed_is_refused_on_resume(folder):
    command(folder, "fit", "taught.yaml", env={"TOY_STEP": "3", "TOY_SIGNAL": "SIGKILL"})
    other = command(
        folder,
        "fit",
        "taught.yaml",
        "seed=5",
        "teacher=null",
        "objective={use: clip}",
        "weights={}",
        "name=other",
        "evaluate=[]",
    )
    assert other.returncode == 0, other.stderr
    shutil.copy(folder / "runs/other-1/encoder.safetensors", folder / "runs/pairs-1/encoder.safetensors")
    shutil.copy(folder / "runs/other-1/recipe.yaml", folder / "runs/pairs-1/recipe.yaml")
    refused = command(folder, "fit", "--resume", "taught-1")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "are not those that the run began with" in refused.stderr


MISTAKES = {
    "no such run": (["teacher.run=pears-1"], ["teacher.run=pears-1: pears-1: no run there; did you mean 'pairs-1'?"]),
    "no teacher": (["teacher=null"], ["needs a teacher", "add teacher: {run: runs/...}"]),
    "not a mapping": (["teacher=latest"], ["teacher", "run"]),
}


@pytest.mark.parametrize("overrides,said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(folder, overrides, said):
    done = command(folder, "fit", "taught.yaml", *overrides)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(words in done.stderr for words in said), done.stderr


def test_a_teacher_of_other_data_is_refused(folder):
    facts = json.loads((folder / "runs/pairs-1/run.json").read_text())
    facts["given"]["signal"]["rate"] = 100.0
    (folder / "runs/pairs-1/run.json").write_text(json.dumps(facts))
    done = command(folder, "check", "taught.yaml")
    assert done.returncode == 2 and "signal.rate is 100.0 there and 32.0 here" in done.stderr
