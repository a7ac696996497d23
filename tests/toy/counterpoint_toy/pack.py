"""A small pack for the tests: signals and words of the same thing, one of the two sometimes missing."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_datasets():
    return {"pairs": "counterpoint_toy.parts:Pairs"}


@hookimpl
def counterpoint_encoders():
    return {name: f"counterpoint_toy.parts:{name}" for name in ("conv", "conv_bn", "bag")}


@hookimpl
def counterpoint_view_generators():
    return {"noise": "counterpoint_toy.parts:Noise", "drop": "counterpoint_toy.parts:Drop"}


@hookimpl
def counterpoint_objectives():
    return {"remember": "counterpoint_toy.parts:Remember", "follow": "counterpoint_toy.parts:Follow"}


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")


@hookimpl
def counterpoint_callbacks():
    return {"chaos": "counterpoint_toy.chaos:Chaos"}
