"""What a pack may contribute: the whole contract on one screen.

A pack is a light module with `COUNTERPOINT_API = 1`, named by an entry point of the group `counterpoint`. It
implements any of the hooks below. A table maps a short name to a lazy `"module:attribute"`; a recipe says
`use: <entry point name>.<short name>`.
"""

import pluggy

API_VERSION = 1
GROUP = "counterpoint"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Table = dict[str, str]


@hookspec
def counterpoint_encoders() -> Table:
    """Factories of modules `encoder(data[, mask][, meta=]) -> h (n, H) | Features` with an int attribute `width` = H."""


@hookspec
def counterpoint_view_generators() -> Table:
    """Steps `step(view, draw) -> View | list[View]`: batched, on the device, an own draw for every sample."""


@hookspec
def counterpoint_objectives() -> Table:
    """`Objective` modules: `objective(outputs) -> (loss, parts)`, with `needs()`."""


@hookspec
def counterpoint_datasets() -> Table:
    """Datasets of `Sample`, with a cheap `spec`."""


@hookspec
def counterpoint_readers() -> Table:
    """`Reader`s of the domain's files, for the core's `manifest` and `folder` and the pack's own datasets."""


@hookspec
def counterpoint_evaluators() -> Table:
    """Evaluators `evaluator(fit, test) -> list[Score]` of embeddings."""


@hookspec
def counterpoint_recipes() -> str:
    """The folder of this pack's recipes (`*.yaml`), as a path."""


@hookspec
def counterpoint_callbacks() -> Table:
    """Lightning callbacks that a recipe may add to a run."""
