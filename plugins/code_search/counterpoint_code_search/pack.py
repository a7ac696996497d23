"""What the code search pack contributes; nothing is imported before a recipe names it."""

from pathlib import Path

from counterpoint.hookspecs import hookimpl

COUNTERPOINT_API = 1


@hookimpl
def counterpoint_encoders():
    return {"roberta": "counterpoint_code_search.encoders.roberta:roberta"}


@hookimpl
def counterpoint_view_generators():
    return {
        "soft": "counterpoint_code_search.views.by_type:SoftAugmentation",
        "type_mask": "counterpoint_code_search.views.by_type:TypeMask",
        "type_replace": "counterpoint_code_search.views.by_type:TypeReplace",
    }


@hookimpl
def counterpoint_readers():
    return {"code": "counterpoint_code_search.readers.code:Code"}


@hookimpl
def counterpoint_datasets():
    return {
        "stdlib": "counterpoint_code_search.data.stdlib:stdlib",
        "codesearchnet": "counterpoint_code_search.data.codesearchnet:codesearchnet",
        "folder": "counterpoint_code_search.data.folder:folder",
    }


@hookimpl
def counterpoint_recipes():
    return str(Path(__file__).parent / "recipes")
