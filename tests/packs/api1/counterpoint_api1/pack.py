"""A pack as it was written for API 1, with every hook. It is frozen: no file of it is ever edited."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {"net": "counterpoint_api1.encoders:Net", "words": "counterpoint_api1.encoders:words"}


@hookimpl
def counterpoint_view_generators():
    return {
        "jitter": "counterpoint_api1.views:Jitter",
        "halves": "counterpoint_api1.views:Halves",
        "scale": "counterpoint_api1.views:Scale",
    }


@hookimpl(specname="counterpoint_objectives")
def losses():
    return {"pull": "counterpoint_api1.objectives:Pull", "follow": "counterpoint_api1.objectives:Follow"}


@hookimpl
def counterpoint_datasets():
    return {"tones": "counterpoint_api1.data:Tones", "part": "counterpoint_api1.data:Part"}


@hookimpl
def counterpoint_readers():
    return {"column": "counterpoint_api1.data:Column"}


@hookimpl
def counterpoint_evaluators():
    return {"spread": "counterpoint_api1.evaluators:Spread", "rows": "counterpoint_api1.evaluators:Rows"}


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")


@hookimpl
def counterpoint_callbacks():
    return {"count": "counterpoint_api1.callbacks:Count"}
