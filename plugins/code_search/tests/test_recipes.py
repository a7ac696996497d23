"""The recipes of the pack, run as a user runs them."""

import csv
import json
import os
import subprocess
import sys

import pytest

WORDS = ("open", "close", "paint", "count", "break", "mend", "turn", "lift", "weigh", "sort")


def counterpoint_command(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpoint", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def pairs(tmp_path):
    """A user's folder: a table of descriptions, with the code in its cells or in files."""
    rows = [["query", "code", "project"]]
    for number, word in enumerate(WORDS):
        for thing in ("door", "box"):
            code = f"def {word}_{thing}(x):\n    y = {number} * x\n    return {word}(y)\n"
            if thing == "box":
                (tmp_path / f"{word}.py").write_text(code)
                code = f"{word}.py"
            rows.append([f"{word} the {thing} of the house", code, f"P{number}"])
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


SMALL = [f"encoders.{m}.{k}={v}" for m in ("text", "code") for k, v in (("width", 16), ("depth", 1), ("heads", 2))]
SMALL += [f"data.readers.{m}.vocabulary=300" for m in ("text", "code")]


def test_a_table_of_a_users_own_pairs(pairs):
    overrides = ["data.path=pairs.csv", "trainer.max_epochs=null", "trainer.max_steps=2", "loader.batch=8", *SMALL]
    done = counterpoint_command(pairs, "fit", "code_search/from_manifest", *overrides)
    assert done.returncode == 0, done.stderr
    scores = json.loads((pairs / "runs/from_manifest-1/scores.json").read_text())
    assert {"trained encoder", "untrained encoder"} <= {score["representation"] for score in scores}


def test_a_missing_file_is_said_before_training(pairs):
    (pairs / "mend.py").unlink()
    done = counterpoint_command(pairs, "fit", "code_search/from_manifest", "data.path=pairs.csv", *SMALL)
    assert done.returncode == 2 and "pairs.csv:" in done.stderr and "mend.py: no such file" in done.stderr
    assert "Traceback" not in done.stderr and not (pairs / "runs").exists()


def test_momentum_and_two_queues_on_codesearchnet(tmp_path):
    for split, words in (("train", WORDS[:6]), ("test", WORDS[6:])):
        with (tmp_path / f"{split}.jsonl").open("w") as file:
            for word in words:
                code = f"def {word}(x):\n    y = x + {len(word)}\n    return y\n"
                file.write(json.dumps({"docstring": f"{word} the thing now", "code": code, "func_name": word}) + "\n")
    small = [word.replace(".readers", "") for word in SMALL]
    overrides = ["data.path=.", "trainer.max_epochs=1", "trainer.precision=32-true", "loader.batch=3", *small]
    overrides += ["evaluate=[{use: retrieval, query: text, key: code}]", "objective.queue.queue=4"]
    done = counterpoint_command(tmp_path, "fit", "code_search/codesearchnet", *overrides)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_quickstart_is_sound(tmp_path):
    checked = counterpoint_command(tmp_path, "check", "code_search/quickstart")
    assert checked.returncode == 0, checked.stderr
