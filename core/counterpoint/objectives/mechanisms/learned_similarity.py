"""The similarity that objectives own, kept in a run folder and read again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from counterpoint.objectives.mechanisms.similarity import Similarity, similarity_of
from counterpoint.runs.run import Run
from counterpoint.towers.storing import load_weights, save_towers


def save_similarity(objectives: Mapping[str, nn.Module], run: Run) -> None:
    """Write what the similarity of the objectives has learned, where there is one that learns."""
    similarity = similarity_of(objectives)
    if similarity is not None and similarity.state_dict():
        save_towers({"similarity": similarity}, run.similarity)


def load_similarity(run: Run, objectives: Mapping[str, nn.Module]) -> Similarity | None:
    """The similarity that retrieval ranks by, as trained: that of the objectives, None when it is a cosine."""
    similarity = similarity_of(objectives)
    if similarity is not None and similarity.state_dict():
        load_weights({"similarity": similarity}, run.similarity)
    return None if similarity is None else similarity.eval()
