"""What this pack contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {
        "gcn": "counterpoint_graphs.encoders:GCN",
        "lightgcn": "counterpoint_graphs.encoders:LightGCN",
        "features": "counterpoint_graphs.encoders:NodeFeatures",
    }


@hookimpl
def counterpoint_view_generators():
    return {
        "whole": "counterpoint_graphs.views:Whole",
        "drop_edges": "counterpoint_graphs.views:DropEdges",
        "communal_edges": "counterpoint_graphs.views:CommunalEdges",
        "communal_features": "counterpoint_graphs.views:CommunalFeatures",
        "svd": "counterpoint_graphs.svd:SVD",
    }


@hookimpl
def counterpoint_objectives():
    return {"team_up": "counterpoint_graphs.objectives:TeamUp"}


@hookimpl
def counterpoint_datasets():
    return {
        "communities": "counterpoint_graphs.data:Communities",
        "from_csv": "counterpoint_graphs.tables:FromCSV",
        "purchases": "counterpoint_graphs.purchases:Purchases",
    }


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
