"""What is tried before a run begins: views, encoders and objectives on two samples, and nothing of the run moved by it."""

import json
import random

import numpy as np
import pytest
import torch

from counterpoint.errors import RecipeError
from counterpoint.fit.assembly import assemble
from counterpoint.fit.dry_run import try_out
from counterpoint.packs.builtin import TABLES
from counterpoint.recipe import load
from test_matrix import ASKS, Ask, recipe_of

OTHER_WIDTH = {"use": "text_transformer", "width": 12, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trial")


def assembled(folder, setting, **sections):
    recipe = {key: value for key, value in recipe_of("code_search", setting, folder).items() if value is not None}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe | sections), encoding="utf-8")
    return assemble(load(path))


def test_tokens_of_different_widths_are_found_before_training(folder, monkeypatch):
    monkeypatch.chdir(folder)
    encoders = {"code": {"use": "text_transformer", "width": 8, "depth": 1, "heads": 2}, "first": OTHER_WIDTH}
    assembly = assembled(folder, "pair", encoders=encoders, objective={"use": "filip"})
    with pytest.raises(RecipeError) as caught:
        try_out(assembly)
    (said,) = caught.value.problems
    assert "recipe.yaml:1: objective: cannot take what the encoders give (code z (8,), tokens (" in said
    assert "tokens of 8 and 12 numbers cannot be compared" in said and "\n" not in said


def test_a_trial_moves_nothing(folder, monkeypatch):
    """Objectives with queues, prototypes, state of every sample and random numbers of their own."""
    monkeypatch.chdir(folder)
    named = {
        name: {"use": name, **ASKS.get(name, Ask()).told}
        for name in ("swav", "moco", "sogclr", "beclr", "interclr", "mochi", "hallucinator")
    }
    assembly = assembled(folder, "views", objective=named, momentum={"decay": 0.9, "final": 1.0})
    parts = [*assembly.towers.values(), *assembly.objectives.values()]
    state = lambda: [  # noqa: E731
        *(t.clone() for part in parts for t in part.state_dict().values() if isinstance(t, torch.Tensor)),
        torch.tensor([m.training for part in parts for m in part.modules()]),
    ]
    try_out(assembly)  # reading may move the generators: they are as reading leaves them
    before, after = state(), []
    for _ in range(2):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        try_out(assembly)
        after.append((random.random(), np.random.rand(), torch.rand(()).item()))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert after == [(random.random(), np.random.rand(), torch.rand(()).item())] * 2
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert all(not t.requires_grad or t.grad is None for part in parts for t in part.parameters())
    assert set(named) <= set(TABLES["objective"])
