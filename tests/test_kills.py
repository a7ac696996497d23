"""Runs that are ended at any place, and gone on with, end as the run that was not: rows R1 to R5 of the table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from faults import ROUNDS
from forked import server
from test_fit import same

pytestmark = pytest.mark.xdist_group("forked")

RECIPE = """
data:      {use: toy.pairs, size: 26, missing: 0.2}
loader:    {batch: 8, micro_batch: 5}
encoders:  {signal: {use: toy.conv_bn, width: 8}, words: {use: toy.bag, width: 8}}
heads:     {signal: {use: mlp, dim: 4}, words: {use: mlp, dim: 4}}
views:     {signal: [{use: copies, n: 2}, {use: toy.noise}], words: [{use: toy.drop}]}
refresh:   {cluster: {use: kmeans, clusters: 3, of: signal}}
objective:
  nce:     {use: info_nce, temperature: 0.2, learnable: true, positives: cluster}
  moco:    {use: moco, queue: 11, momentum: 0.9}
  memory:  {use: toy.remember}
  sog:     {use: sogclr}
optimizer: {use: adamw, lr: 0.003}
trainer:   {max_epochs: 2, accelerator: cpu, accumulate_grad_batches: 2, log_every_n_steps: 2}
evaluate:  [{use: knn, label: kind, k: 1, modality: signal}]
stages:    [{name: one}, {name: two, trainer: {max_epochs: 2, accelerator: cpu, log_every_n_steps: 2}}]
loggers:   []
name: killed
"""
STEPS = 2 * 2 * 4
SAVING = ["save_at_every_step"]


@pytest.fixture(scope="module")
def forked():
    return server()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def straight(forked, tmp_path_factory):
    """The run that nothing happens to, what it learnt from, and what it did to files."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "recipe.yaml").write_text(RECIPE)
    records = [["record_samples", str(folder / "seen")], ["record_operations", str(folder / "operations")]]
    done = forked("fit", "recipe.yaml", cwd=folder, first=[SAVING, *records])
    assert done.returncode == 0, done.stderr
    return folder


def seen(path: Path) -> dict[tuple, list]:
    """(stage, step) -> samples; the same, however often it was done."""
    found = {}
    for line in path.read_text().splitlines():
        stage, step, samples = json.loads(line)
        assert found.setdefault((stage, step), samples) == samples
    return found


def checkpoints(run: Path) -> dict[str, dict]:
    return {
        str(p.relative_to(run)): torch.load(p, weights_only=True) for p in sorted(run.glob("checkpoints/**/*.ckpt"))
    }


def assert_equal_runs(a: Path, b: Path) -> None:
    """Everything that is kept: weights, all of the checkpoints, every row of the metrics, scores; and nothing else."""
    mine, theirs = checkpoints(a), checkpoints(b)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert not (different := same(mine[name], theirs[name])), (name, different[:5])
    for name in ("metrics.csv", "scores.json", "encoder.safetensors", "stages/one.safetensors", "recipe.yaml"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    files = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (a, b)]
    assert files[0] == files[1]
    assert json.loads((b / "run.json").read_text())["state"] == "done"


def went_on(forked, folder: Path, *overrides, first=()) -> Path:
    """The run, gone on with to its end, or begun anew where there was none yet."""
    done = forked("fit", "--resume", "latest", *overrides, cwd=folder, first=[SAVING, *first])
    if "there is no run in" in done.stderr or "no run there" in done.stderr:
        done = forked("fit", "recipe.yaml", cwd=folder, first=[SAVING, *first])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return max(p.parent for p in folder.glob("runs/*/run.json"))


# --- R1, R2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("R1")
def test_killed_at_any_step_a_run_ends_as_the_one_that_was_not(forked, straight, folder, tmp_path, record_property):
    """Twice in a row, with workers and without: queues, momentum, per-sample state, columns, windows and stages."""
    draw = np.random.default_rng(1)
    for number in range(2 * ROUNDS):
        here = tmp_path / str(number)
        here.mkdir()
        shutil.copy(folder / "recipe.yaml", here)
        record = ["record_samples", str(here / "seen")]
        first, second = int(draw.integers(1, STEPS)), int(draw.integers(0, 4))
        workers = f"loader.workers={2 * (number % 2)}"
        killed = forked("fit", "recipe.yaml", workers, cwd=here, first=[SAVING, record, ["at_step", first]])
        assert killed.returncode == -9
        again = forked("fit", "--resume", "latest", cwd=here, first=[SAVING, record, ["at_step", second]])
        assert again.returncode in (-9, 0), again.stderr
        run = went_on(forked, here, first=[record])
        (run / "recipe.yaml").write_text(
            (run / "recipe.yaml").read_text().replace(f"workers: {workers[-1]}", "workers: auto")
        )
        assert_equal_runs(straight / "runs/killed-1", run)
        assert seen(here / "seen") == seen(straight / "seen")
        record_property("survived", number + 1)


@pytest.mark.fault("R1")
def test_every_sample_is_seen_once_an_epoch(straight):
    found = seen(straight / "seen")
    for stage in ("one", "two"):
        for epoch in range(2):
            samples = [i for (name, step), part in found.items() if name == stage and step // 4 == epoch for i in part]
            assert sorted(samples) == list(range(26))
    for name in ("step", "epoch,name"):
        assert name in (straight / "runs/killed-1/metrics.csv").read_text()


@pytest.mark.fault("R2")
@pytest.mark.parametrize("before,after", [(2, 1), pytest.param(0, 3, marks=pytest.mark.slow)])
def test_gone_on_with_by_other_workers(forked, straight, folder, before, after):
    step = 5
    killed = forked("fit", "recipe.yaml", f"loader.workers={before}", cwd=folder, first=[SAVING, ["at_step", step]])
    assert killed.returncode == -9
    resumed = forked("fit", "--resume", "killed-1", f"loader.workers={after}", cwd=folder, first=[SAVING])
    assert (
        "resuming runs/killed-1, stage one at step 4 (epoch 1, batch 0 of 4)" in resumed.stderr
    )  # 5 is within a window
    expected, got = checkpoints(straight / "runs/killed-1"), checkpoints(folder / "runs/killed-1")
    assert expected.keys() == got.keys() and not [d for n in got for d in same(expected[n], got[n])]


# --- R3 --------------------------------------------------------------------------------------------------------------

CODES = {"SIGTERM": 143, "SIGINT": 130}


@pytest.mark.fault("R3")
@pytest.mark.parametrize("name", CODES)
def test_a_signal_in_a_window_of_accumulation_waits_for_its_end(forked, straight, folder, name):
    """Sent to all processes of the run, as a terminal or a scheduler does: reading workers outlive it."""
    stopped = forked("fit", "recipe.yaml", "loader.workers=2", cwd=folder, first=[["at_step", 4, f"all {name}"]])
    assert stopped.returncode == CODES[name], stopped.stderr
    said = f"stopped by {name} at step 6; continue with: counterpoint fit --resume runs/killed-1"
    assert stopped.stderr.splitlines()[-1] == said
    assert "stopped" in (folder / "runs/killed-1/run.json").read_text()
    run = went_on(forked, folder)
    assert (run / "encoder.safetensors").read_bytes() == (straight / "runs/killed-1/encoder.safetensors").read_bytes()
    assert (run / "metrics.csv").read_bytes() == (straight / "runs/killed-1/metrics.csv").read_bytes()


@pytest.mark.fault("R3")
def test_asked_twice_it_stops_at_once(forked, folder):
    stopped = forked("fit", "recipe.yaml", cwd=folder, first=[SAVING, ["at_step", 4, "SIGINT", 2]])
    assert stopped.returncode == 130, stopped.stderr
    said = "stopped by SIGINT at once; continue with: counterpoint fit --resume runs/killed-1"
    assert stopped.stderr.splitlines()[-1] == said and "Traceback" not in stopped.stderr


@pytest.mark.fault("R3")
@pytest.mark.parametrize("name", CODES)
def test_a_signal_before_the_first_step_leaves_nothing(forked, folder, name):
    for place in ("counterpoint.fit.dry_run:try_out", "counterpoint.fit.trainer:build_trainer", "counterpoint.runs.checkpoints:Checkpoints.on_train_start"):  # fmt: skip
        stopped = forked("fit", "recipe.yaml", cwd=folder, first=[["at_call", place, name]])
        assert stopped.returncode == CODES[name], (place, stopped.stderr)
        last = stopped.stderr.splitlines()[-1]
        assert last == f"stopped by {name} before the first checkpoint; nothing is kept", (place, stopped.stderr)
        assert not list(folder.glob("runs/*"))


@pytest.mark.fault("R3")
def test_a_signal_in_the_last_step_or_the_evaluation_loses_nothing(forked, straight, folder):
    place = ["at_call", "counterpoint.fit.scoring:evaluate", "SIGTERM"]
    stopped = forked("fit", "recipe.yaml", cwd=folder, first=[SAVING, place])
    assert stopped.returncode == 143, stopped.stderr
    kept = "the encoder is trained and kept; score it with: counterpoint evaluate runs/killed-1"
    assert stopped.stderr.splitlines()[-1] == f"stopped by SIGTERM; {kept}"
    assert_equal_runs(straight / "runs/killed-1", went_on(forked, folder))


@pytest.mark.fault("R3")
def test_a_signal_while_the_last_checkpoint_is_written_is_not_lost(forked, straight, folder):
    place = ["at_call", "counterpoint.runs.checkpoints:Checkpoints.on_train_end", "SIGTERM"]
    stopped = forked("fit", "recipe.yaml", cwd=folder, first=[place])
    assert stopped.returncode == 143 and "stopped by SIGTERM at step 8" in stopped.stderr, stopped.stderr
    run = went_on(forked, folder)
    assert (run / "metrics.csv").read_bytes() == (straight / "runs/killed-1/metrics.csv").read_bytes()


# --- R4 --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("R4")
def test_killed_before_any_operation_on_its_files(forked, straight, tmp_path, record_property):
    """Between the write and the rename, after the rename, while old ones are dropped, between two files: anywhere."""
    count = len((straight / "operations").read_text().splitlines())
    chosen = np.random.default_rng(4).permutation(np.arange(1, count + 1))[: 3 * ROUNDS]
    for number, operation in enumerate(chosen.tolist(), 1):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "recipe.yaml").write_text(RECIPE)
        killed = forked("fit", "recipe.yaml", cwd=here, first=[SAVING, ["at_operation", operation]])
        assert killed.returncode == -9, (operation, killed.stderr)
        for path in here.glob("runs/**/*.ckpt"):
            torch.load(path, weights_only=True)
        assert_equal_runs(straight / "runs/killed-1", went_on(forked, here))
        record_property("survived", number)


PLACES = {".ckpt": 60_000, "encoder.safetensors": 900, "one.safetensors": 900, "metrics.csv": 900, "scores.json": 300,
          "run.json": 3000, "data.json": 100, "recipe.yaml": 300, "summary.md": 90}  # fmt: skip


@pytest.mark.fault("R4")
def test_killed_in_the_middle_of_a_write(forked, straight, tmp_path, record_property):
    draw = np.random.default_rng(5)
    places = [".ckpt", "metrics.csv", *draw.permutation(list(PLACES))][: 2 if ROUNDS == 1 else 2 + len(PLACES)]
    for number, place in enumerate(places, 1):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "recipe.yaml").write_text(RECIPE)
        room = int(draw.integers(1, PLACES[place]))
        killed = forked("fit", "recipe.yaml", cwd=here, first=[SAVING, ["kill_after_bytes", place, room]])
        assert killed.returncode == -9, (place, room, killed.stderr)
        assert_equal_runs(straight / "runs/killed-1", went_on(forked, here))
        record_property("survived", number)


@pytest.mark.fault("R4")
def test_what_was_cut_off_is_named_and_swept(forked, folder, tmp_path_factory):
    """Also with a folder for temporary files on another file system: nothing passes through it."""
    elsewhere = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path_factory.mktemp("elsewhere")
    first = [SAVING, ["at_operation", 30]]
    record = ["record_operations", str(folder / "operations")]
    killed = forked("fit", "recipe.yaml", cwd=folder, first=[*first, record], env={"TMPDIR": str(elsewhere)})
    assert killed.returncode == -9
    room = sum(path.stat().st_size for path in folder.glob("runs/**/*.ckpt")) // 6  # half of one
    killed = forked("fit", "--resume", "latest", cwd=folder, first=[SAVING, ["kill_after_bytes", ".ckpt", room]])
    (part,) = folder.glob("runs/**/.*.ckpt.part")
    assert part.stat().st_size
    resumed = forked("fit", "--resume", "latest", cwd=folder)
    ignored = f"ignored {part.name[1:-5]} (incomplete: the process was ended while it was written); using step-"
    assert ignored in resumed.stderr and resumed.returncode == 0
    assert not list(folder.glob("runs/**/.*.part"))


# --- R5 --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("R5")
@pytest.mark.parametrize("place,room", [(".ckpt", 150_000), ("metrics.csv", 300), ("encoder.safetensors", 500)])
def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_is_kept(forked, straight, folder, place, room):
    full = forked("fit", "recipe.yaml", cwd=folder, first=[SAVING, ["disk_full_after", place, room]])
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert "cannot write runs/killed-1/" in full.stderr and "No space left on device" in full.stderr
    assert "are free there" in full.stderr.splitlines()[-1]
    assert not list(folder.glob("runs/**/.*.part"))
    assert_equal_runs(straight / "runs/killed-1", went_on(forked, folder))


# --- R10, R16, R17: what ends a run from within -----------------------------------------------------------------------


@pytest.mark.fault("R10")
@pytest.mark.parametrize(
    "what,said", [("hang", "gave nothing for"), ("die", "; last sample 9"), ("raise", "sample 9: KeyError")]
)
def test_a_worker_that_fails_in_the_second_epoch_ends_the_run_with_a_checkpoint(forked, straight, folder, what, said):
    """Between two steps one is written on the way out; a sample that raises comes with its batch, within a step."""
    first, short = [["worker_does", what, 9, 3]], {"COUNTERPOINT_READING_TIMEOUT": "1"}  # each epoch refreshes, too
    options = ["loader.workers=2", "trainer.accumulate_grad_batches=1", "stages=[]"]
    first += [SAVING] if what == "raise" else []
    done = forked("fit", "recipe.yaml", *options, cwd=folder, first=first, env=short)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert said in done.stderr.splitlines()[-1] and (what == "raise" or "last sample 9" in done.stderr)
    resumed = forked("fit", "--resume", "killed-1", cwd=folder)
    assert resumed.returncode == 0 and "resuming runs/killed-1 at step" in resumed.stderr, resumed.stderr


@pytest.mark.fault("R16")
def test_out_of_memory_keeps_the_checkpoint_and_says_how_to_go_on(forked, straight, folder):
    error = ["raise_at_step", 5, "OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."]
    done = forked("fit", "recipe.yaml", cwd=folder, first=[SAVING, error])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "go on with counterpoint fit --resume runs/killed-1 loader.micro_batch=4, which" in done.stderr
    resumed = forked("fit", "--resume", "runs/killed-1", "loader.micro_batch=4", cwd=folder)
    assert resumed.returncode == 0 and "at step 4" in resumed.stderr, resumed.stderr


TWO = ("fit", "recipe.yaml", "trainer.devices=2", "evaluate=[]", "stages=[{name: one}, {name: two}]")


@pytest.mark.fault("R17")
@pytest.mark.parametrize(
    "rank,what,said",
    [
        (1, ["at_step", 5, "SIGKILL", 1, 1], "rank 1 died (SIGKILL); go on with: counterpoint fit --resume runs/killed-1"),
        (1, ["raise_at_step", 5, "DataError", "sample 7 x.wav: truncated", 1], "rank 1 died (exit code 2; what it said stands above)"),
        (0, ["at_step", 5, "SIGKILL", 1, 0], "rank 0 died; go on with: counterpoint fit --resume latest"),
    ],
)  # fmt: skip
def test_when_a_rank_dies_the_other_ends_and_says_so(forked, folder, rank, what, said):
    done = forked(*TWO, cwd=folder, first=[SAVING, ["fork_ranks", *TWO], what], linger=60)
    assert done.returncode == (-9 if rank == 0 else 2), done.stderr
    assert done.seconds < 60 and "Traceback" not in done.stderr  # and the other has ended: it would linger
    assert f"error: {said}" in done.stderr, done.stderr
    if rank == 1 and what[0] == "raise_at_step":
        assert "error: sample 7 x.wav: truncated" in done.stderr


def test_stages_of_unlike_numbers_of_processes_are_refused(forked, folder):
    done = forked("fit", "recipe.yaml", "trainer.devices=2", cwd=folder)
    assert done.returncode == 2 and "stages of 1, 2 processes; give all the same trainer.devices" in done.stderr


@pytest.mark.slow
@pytest.mark.fault("R1")
def test_two_processes_killed_and_gone_on_with(forked, tmp_path, record_property):
    """One of them, or both; with queues, momentum, per-sample state, running statistics and refreshed columns."""
    runs, draw = [], np.random.default_rng(17)
    for number in range(1 + ROUNDS):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "recipe.yaml").write_text(RECIPE)
        step = 4 if number == 1 else int(draw.integers(1, 11))  # 4: gone on with just before columns are refreshed
        kill = [["at_step", step, "SIGKILL", 1, number % 2]] if number else []
        done = forked(*TWO, cwd=here, first=[SAVING, ["fork_ranks", *TWO], *kill], linger=60)
        assert (done.returncode == 0) == (not kill), done.stderr
        if kill:
            kept = (here / "runs/killed-1").is_dir()  # else it was before the first checkpoint
            again = ("fit", "--resume", "runs/killed-1") if kept else TWO
            done = forked(*again, cwd=here, first=[SAVING, ["fork_ranks", *again]], linger=60)
            assert done.returncode == 0, done.stderr
        runs.append(here / "runs/killed-1")
        expected, got = checkpoints(runs[0]), checkpoints(runs[-1])
        assert expected.keys() == got.keys() and not [d for n in got for d in same(expected[n], got[n])]
        assert (runs[0] / "metrics.csv").read_bytes() == (runs[-1] / "metrics.csv").read_bytes()
        record_property("survived", number)


@pytest.mark.slow
@pytest.mark.fault("R17")
def test_the_same_with_processes_that_lightning_starts(folder, straight):
    from test_fit import started

    stopped = started(
        folder, *TWO, "callbacks=[toy.chaos]", env={"TOY_STEP": "3", "TOY_SIGNAL": "SIGKILL", "TOY_RANK": "1"}
    )
    assert stopped.returncode == 2 and "error: rank 1 died (SIGKILL)" in stopped.stderr, stopped.stderr
    resumed = started(folder, "fit", "--resume", "latest")
    assert resumed.returncode == 0, resumed.stderr
