"""Runs from the command line: what a user does, and what they see when it goes wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from counterpoint.cli import main
from counterpoint.errors import RecipeError, RunError
from counterpoint.fit.length import length_of
from counterpoint.fit.remedies import remedy
from counterpoint.recipe import TrainerOptions
from counterpoint.runs.ranks import is_first_rank
from counterpoint.runs.resuming import check_data
from counterpoint.runs.run import Run
from forked import server

HERE = Path(__file__).parent
RECIPE = """
data:      {use: toy.pairs, size: 48, missing: 0.3}
loader:    {batch: 16}
encoders:
  signal:  {use: toy.conv_bn}
  words:   {use: toy.bag}
heads:
  signal:  {use: mlp, dim: 8}
  words:   {use: mlp, dim: 8}
views:
  signal:  [{use: copies, n: 2}, {use: toy.noise, sigma: 0.1}]
  words:   [{use: toy.drop, rate: 0.1}]
objective:
  nce:     {use: info_nce, temperature: 0.2, learnable: true}
  moco:    {use: moco, queue: 30, momentum: 0.9}
  memory:  {use: toy.remember}
weights:   {moco: 0.5, memory: 0.1}
optimizer: {use: adamw, lr: 0.003}
trainer:   {max_epochs: 4, accelerator: cpu}
evaluate:  [{use: knn, label: kind, k: 1, modality: signal}]
callbacks: [toy.chaos]
name: pairs
"""


def command(folder, *words, env=None, timeout=240):
    """A command of a warm process's child: what it says, and how it ends, in a fraction of the time."""
    return server()(*words, cwd=folder, env=env, timeout=timeout)


def started(folder, *words, env=None, timeout=240):
    """A command as a shell starts it."""
    paths = [str(HERE / "toy"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "OMP_NUM_THREADS": "1",
        **(env or {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "counterpoint", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    (folder / "recipe.yaml").write_text(RECIPE)
    done = started(folder, "fit", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    return folder, done


def last_checkpoint(folder):
    path = max((folder / "runs/pairs-1/checkpoints").glob("step-*.ckpt"))
    return torch.load(path, weights_only=True)


def same(a, b, path=""):
    """Every tensor and number equal to the bit, wherever it stands."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        return [p for key in a for p in same(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        return [p for i, (x, y) in enumerate(zip(a, b, strict=True)) for p in same(x, y, f"{path}[{i}]")]
    return [] if a == b else [path]


def logged(path):
    """(step, name) of every row of metrics.csv."""
    return sorted((int(row.split(",")[0]), row.split(",")[2]) for row in path.read_text().splitlines()[1:])


def test_a_run_leaves_everything_in_its_folder(straight):
    folder, _done = straight
    run = folder / "runs/pairs-1"
    assert {"recipe.yaml", "run.json", "metrics.csv", "scores.json", "summary.md", "encoder.safetensors"} <= {
        p.name for p in run.iterdir()
    }
    facts = json.loads((run / "run.json").read_text())
    assert (
        facts["state"] == "done"
        and {"counterpoint", "torch", "lightning", "counterpoint-toy"} <= facts["versions"].keys()
    )
    metrics = (run / "metrics.csv").read_text()
    for name in (
        "loss",
        "loss/nce",
        "loss/moco",
        "lr",
        "alignment",
        "uniformity/signal",
        "effective_rank/words",
        "live/",
    ):
        assert name in metrics
    assert "data_wait" in (run / "timings.csv").read_text()
    rows = {record["representation"] for record in json.loads((run / "scores.json").read_text())}
    assert rows == {"trained encoder", "untrained encoder", "raw input"}


def test_a_short_run_says_little_and_ends_with_the_code_that_loads_it(straight):
    folder, done = straight
    assert len((done.stdout + done.stderr).splitlines()) < 20
    assert len(done.stderr.splitlines()) == 1  # talk on stderr, results on stdout
    code = "\n".join(line.strip() for line in done.stdout.splitlines()[-3:])
    code = (
        code.replace("encoder(x)", "encoder(__import__('torch').randn(3, 2, 64))")
        + "\nprint(tuple(h.shape), encoder.training)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE / "toy")},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "(3, 16) False", ran.stderr


@pytest.mark.fault("R1")
@pytest.mark.parametrize("step,workers", [(2, 2), pytest.param(6, 1, marks=pytest.mark.slow), (11, 0)])
def test_killed_and_resumed_with_other_workers_ends_bit_identical(folder, straight, step, workers):
    killed = command(folder, "fit", "recipe.yaml", env={"TOY_STEP": str(step), "TOY_SIGNAL": "SIGKILL"})
    assert killed.returncode == -9
    resumed = command(folder, "fit", "--resume", "latest", f"loader.workers={workers}")
    assert resumed.returncode == 0, resumed.stderr
    epoch, batch = divmod(step - 1, 3)
    assert f"resuming runs/pairs-1 at step {step - 1} (epoch {epoch}, batch {batch} of 3)" in resumed.stderr
    expected, got = last_checkpoint(straight[0]), last_checkpoint(folder)
    assert not same(expected["state_dict"], got["state_dict"])
    assert not same(expected["optimizer_states"], got["optimizer_states"])
    assert not same(expected["lr_schedulers"], got["lr_schedulers"])
    assert (folder / "runs/pairs-1/metrics.csv").read_text().count("loss/nce") > 0


@pytest.mark.fault("R3")
@pytest.mark.parametrize("name,code", [("SIGTERM", 143), pytest.param("SIGINT", 130, marks=pytest.mark.slow)])
def test_a_signal_leaves_a_checkpoint_and_the_command_to_continue(folder, straight, name, code):
    stopped = command(folder, "fit", "recipe.yaml", env={"TOY_STEP": "7", "TOY_SIGNAL": name})
    assert stopped.returncode == code, stopped.stderr
    assert (
        stopped.stderr.splitlines()[-1]
        == f"stopped by {name} at step 7; continue with: counterpoint fit --resume runs/pairs-1"
    )
    resumed = command(folder, "fit", "--resume", "runs/pairs-1")
    assert resumed.returncode == 0, resumed.stderr
    assert not same(last_checkpoint(straight[0])["state_dict"], last_checkpoint(folder)["state_dict"])


def test_runs_never_share_a_folder_and_are_listed(straight):
    folder, _ = straight
    again = command(folder, "fit", "recipe.yaml", "trainer.max_epochs=1")
    assert again.returncode == 0 and "runs/pairs-2" in again.stderr
    assert [line.split()[0] for line in command(folder, "runs").stdout.splitlines()] == ["run", "pairs-1", "pairs-2"]
    assert "accuracy" in command(folder, "runs", "best", "accuracy").stdout
    assert "versions: counterpoint" in command(folder, "runs", "show", "pairs-1").stdout
    finished = command(folder, "fit", "--resume", "pairs-1")
    assert finished.returncode == 0 and "is done" in finished.stderr


def test_evaluate_again_gives_the_same_scores(straight):
    folder, done = straight
    table = done.stdout.split("\n\n")[0]
    assert command(folder, "evaluate", "pairs-1").stdout.startswith(table)
    other = command(folder, "evaluate", "pairs-1", "evaluate=[{use: linear_probe, label: kind, modality: signal}]")
    assert other.returncode == 0 and "linear_probe kind: balanced_accuracy" in other.stdout, other.stderr


MISTAKES = {
    "misspelt option": (["encoders.signal.widht=3"], ["encoders.signal.widht", "did you mean 'width'?"]),
    "unknown component": (["objective=info_nec"], ["info_nec", "did you mean 'info_nce'?"]),
    "batch of one": (["loader.batch=1"], ["the smallest batch that makes sense is loader.batch: 2"]),
    "micro-batch beyond the batch": (
        ["loader.micro_batch=32"],
        ["loader.micro_batch=32: 32 samples at a time of a batch of 16"],
    ),
    "absent GPU": (["trainer.accelerator=gpu"], ["trainer.accelerator", "no GPU", "auto"]),
    "no such group": (
        ["objective.nce.positives=patient"],
        ["'patient' is not a group of data 'toy.pairs'; it has: subject"],
    ),
    "no such label": (
        ["evaluate=[{use: knn, label: class}]"],
        ["'class' is neither a label nor a group", "kind, subject"],
    ),
    "one view": (
        [
            "objective={use: nt_xent}",
            "weights={}",
            "encoders={signal: toy.conv}",
            "data.modalities=[signal]",
            "views={signal: []}",
            "heads={}",
            "evaluate=[]",
        ],
        ["two views of one sample", "add views.signal: [{use: copies, n: 2}, ...]"],
    ),
    "no encoder": (
        ["encoders={signal: toy.conv}", "views={}", "heads={}"],
        ["has the modality 'words' and the recipe no encoder for it"],
    ),
    "no such pack": (["data=marine.whales"], ["pip install counterpoint-marine"]),
    "corrupt sample": (["data.broken=5"], ["sample 5 signal.npy: truncated"]),
}


@pytest.mark.parametrize("overrides,said", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of the mistakes is to ask for an absent GPU")
def test_a_mistake_is_one_message(folder, overrides, said, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["fit", "recipe.yaml", "callbacks=[]", *overrides]) == 2
    done = capsys.readouterr()
    assert done.out == "" and len(done.err.splitlines()) <= 6
    for words in said:
        assert words in done.err


def test_unreadable_samples_are_skipped_on_request_and_counted(folder):
    done = command(folder, "fit", "recipe.yaml", "data.broken=5", "loader.on_bad=skip", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert "skipped 1 samples that cannot be read" in done.stderr
    assert (folder / "runs/pairs-1/skipped.txt").read_text() == "sample 5 signal.npy: truncated\n"


@pytest.mark.slow  # tests/test_stages.py has the same without the command line
def test_stages_start_from_the_weights_before_and_resume_in_the_right_one(folder):
    stages = "[{name: first, trainer: {max_epochs: 1, accelerator: cpu}}, {name: second, objective: {use: clip}, optimizer: {use: adamw, lr: 0.0}}]"
    done = command(folder, "fit", "recipe.yaml", f"stages={stages}", "weights={}")
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    run = folder / "runs/pairs-1"
    first, last = load_file(run / "stages/first.safetensors"), load_file(run / "encoder.safetensors")
    assert all(
        torch.equal(first[name], last[name])
        for name in first
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    (folder / "again").mkdir()
    (folder / "again/recipe.yaml").write_text(RECIPE)
    command(
        folder / "again",
        "fit",
        "recipe.yaml",
        f"stages={stages}",
        "weights={}",
        env={"TOY_STEP": "5", "TOY_SIGNAL": "SIGKILL"},
    )
    resumed = command(folder / "again", "fit", "--resume", "latest")
    assert "stage second at step 4" in resumed.stderr, resumed.stderr
    again = load_file(folder / "again/runs/pairs-1/encoder.safetensors")
    assert not same(last, again)
    rows, resumed_rows = (logged(path / "runs/pairs-1/metrics.csv") for path in (folder, folder / "again"))
    assert rows == resumed_rows and len(set(rows)) == len(rows)  # steps count on through the stages


@pytest.mark.fault("R6")
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(folder):
    command(folder, "fit", "recipe.yaml", env={"TOY_STEP": "6", "TOY_SIGNAL": "SIGKILL"})
    newest = folder / "runs/pairs-1/checkpoints/step-00000005.ckpt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    resumed = command(folder, "fit", "--resume", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert (
        "ignored" in resumed.stderr
        and "step-00000005.ckpt is damaged" in resumed.stderr
        and "at step 4" in resumed.stderr
    )


@pytest.mark.fault("R15")
def test_changes_on_resume_are_refused(folder):
    command(folder, "fit", "recipe.yaml", env={"TOY_STEP": "3", "TOY_SIGNAL": "SIGKILL"})
    refused = command(folder, "fit", "--resume", "latest", "optimizer.lr=0.1")
    assert refused.returncode == 2 and "--allow-changes" in refused.stderr
    assert command(folder, "fit", "--resume", "latest", "optimizer.lr=0.1", "--allow-changes").returncode == 0
    groups = last_checkpoint(folder)["optimizer_states"][0]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.1}
    assert "lr: 0.1" in (folder / "runs/pairs-1/recipe.yaml").read_text()  # as the next resume has to know


def test_print_config_round_trips(folder):
    first = command(folder, "fit", "recipe.yaml", "callbacks=[]", "seed=3", "--print-config")
    (folder / "whole.yaml").write_text(first.stdout)
    assert command(folder, "fit", "whole.yaml", "--print-config").stdout == first.stdout
    checked = command(folder, "check", "whole.yaml")
    assert checked.returncode == 0 and "signal (2 views), words (1 views)" in checked.stdout


HOLDER = """
import os, signal, sys, time
from pathlib import Path
from counterpoint.runs.run import Run
run = Run(Path(sys.argv[1])).lock()
if os.fork() == 0:  # as a reading worker is
    print("held", flush=True)
    time.sleep(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault("R15")
def test_a_folder_is_free_as_soon_as_its_process_is_dead(tmp_path):
    """Reading workers of a killed run live on for seconds."""
    worker = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, process_group=0)
    assert worker.stdout.readline() == b"held\n" and worker.wait() == -9
    try:
        Run(tmp_path).lock()
    finally:
        os.killpg(worker.pid, 9)


def recipe_of(**options):
    return SimpleNamespace(trainer=TrainerOptions(**options), where=lambda path: path)


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
@pytest.mark.parametrize("options", [{"max_epochs": 3}, {"max_steps": 5}, {"max_epochs": -1, "max_steps": 7}])
def test_the_length_of_a_run(accumulate, options):
    """Batches and optimizer steps are those of a loop that counts; a window of accumulation ends with its epoch."""
    batches = steps = epoch = 0
    while epoch < options.get("max_epochs", -1) % 100 and steps != options.get("max_steps"):
        for batch in range(1, 6):
            batches, window_ends = batches + 1, batch % accumulate == 0 or batch == 5
            steps += window_ends
            if steps == options.get("max_steps"):
                break
        epoch += 1
    assert length_of(recipe_of(accumulate_grad_batches=accumulate, **options), 5) == (batches, steps)


def test_a_run_without_end_is_refused():
    with pytest.raises(RecipeError, match=r"trainer\.max_epochs: -1 is a run without end"):
        length_of(recipe_of(max_epochs=-1), 5)


@pytest.mark.parametrize(
    "environment,first",
    [
        ({}, True),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_which_process_writes(environment, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_rank() == first


@pytest.mark.fault("R15")
def test_data_that_changed_are_refused_on_resume(tmp_path):
    run = Run(tmp_path)
    run.note(given={"signal": {"size": 48, "length": 64}})
    check_data(run, None, {"signal": {"size": 48, "length": 64}})
    with pytest.raises(RunError, match=r"changed since the run began \(signal.size 48 -> 52\)"):
        check_data(run, None, {"signal": {"size": 52, "length": 64}})


@pytest.mark.slow
def test_two_processes_from_the_command_line(folder):
    done = started(folder, "fit", "recipe.yaml", "trainer.devices=2", "callbacks=[]")
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "runs").iterdir())) == 1
    assert "trained encoder" in done.stdout and done.stdout.count("trained encoder") == 2  # trained and untrained, once


def test_a_mistake_in_a_later_stage_is_found_before_the_first(folder):
    stages = "[{name: first, objective: clip}, {name: second, objective: {use: info_nce, positives: patient}}]"
    done = command(folder, "fit", "recipe.yaml", "callbacks=[]", "weights={}", f"stages={stages}")
    assert done.returncode == 2 and "'patient' is not a group" in done.stderr
    assert not (folder / "runs").exists()


def test_a_run_that_stopped_and_was_resumed_is_done_without_a_trace(folder):
    command(folder, "fit", "recipe.yaml", env={"TOY_STEP": "3", "TOY_SIGNAL": "SIGTERM"})
    assert " stopped " in command(folder, "runs").stdout
    assert command(folder, "fit", "--resume", "latest").returncode == 0
    shown = command(folder, "runs", "show").stdout
    assert ": done" in shown and "continue with" not in shown and "failed" not in shown


QUESTIONS = """
data:
  use: manifest
  path: pairs.csv
  inputs: {question: question, answer: answer}
  readers:
    question: {use: text, tokenizer: bpe, vocabulary: 320}
    answer:   {use: text}
encoders:
  question: {use: text_transformer, width: 16, depth: 1, heads: 2}
  answer:   {use: text_transformer, width: 16, depth: 1, heads: 2}
views:
  question: [{use: token_mask, fraction: 0.1}]
objective: clip
trainer: {max_epochs: 1, accelerator: cpu}
evaluate: [{use: retrieval, query: question, key: answer}]
baselines:
  question: [{use: bm25, role: query}, {use: length}]
  answer:   [{use: bm25, role: document}, {use: length}]
name: questions
"""


def test_texts_of_a_table_train_beside_lexical_baselines(tmp_path):
    words = ["ant", "bee", "cow", "dog", "elk", "fly", "gnu", "hen"]
    rows = [f"where is the {a} number {i},the {a} {i} is in the {b} house" for i, (a, b) in enumerate(zip(words * 5, words[::-1] * 5))]  # fmt: skip
    (tmp_path / "pairs.csv").write_text("\n".join(["question,answer", *rows]))
    (tmp_path / "recipe.yaml").write_text(QUESTIONS)
    done = command(tmp_path, "fit", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/questions-1"
    scores = {r["representation"]: r["value"] for r in json.loads((run / "scores.json").read_text()) if r["metric"] == "question->answer/R@1"}  # fmt: skip
    assert scores.keys() == {"trained encoder", "untrained encoder", "bm25", "length"} and scores["bm25"] == 1.0
    assert not (run / "answer.tokenizer.json").exists()
    import counterpoint

    reader = counterpoint.tokenizer(run, "question")
    encoder = counterpoint.load(run, "question")
    assert encoder(reader.ids("where is the cow")[None]).h.shape == (1, 16)
    assert counterpoint.tokenizer(run, "answer").ids("abc").tolist() == [100, 101, 102]


@pytest.mark.fault("R16")
@pytest.mark.parametrize(
    ("micro", "kept", "said"),
    [
        (None, True, "--resume {run} loader.micro_batch=512,"),
        (48, True, "--resume {run} loader.micro_batch=32,"),
        (2, False, "nothing is lost yet: start again with loader.micro_batch=1,"),
        (1, False, "one sample at a time is too much"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "host"],
)
def test_out_of_memory_says_which_micro_batch_to_try(error, micro, kept, said, tmp_path):
    run = Run(tmp_path)
    if kept:
        run.checkpoints().mkdir()
        (run.checkpoints() / "step-00000010.ckpt").touch()
    recipe = SimpleNamespace(loader=SimpleNamespace(batch=1024, micro_batch=micro))
    loop = SimpleNamespace(trainer=SimpleNamespace(global_step=10, world_size=1))
    message = remedy(error, recipe, loop, run)
    assert message.startswith("out of memory at 10 steps; ") and len(message.splitlines()) == 1
    assert said.format(run=tmp_path) in message


@pytest.mark.xdist_group("forked")
@pytest.mark.fault("R11")
def test_a_rate_that_no_weight_can_hold_is_said(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    refused = command(tmp_path, "fit", "recipe.yaml", "optimizer.lr=1e39")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "error: the weights are not finite after step 1, though the loss was" in refused.stderr
    assert "set trainer.gradient_clip_val: 1.0 or lower optimizer.lr" in refused.stderr
    raised = RuntimeError("value cannot be converted to type float without overflow")  # where the optimizer looks first
    said = "the optimizer has a number that the weights cannot hold: lower optimizer.lr"
    assert remedy(raised, None, None, SimpleNamespace(folder=tmp_path)).startswith(said)
