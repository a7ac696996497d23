"""Contrastive representation learning in any domain: packs bring the domain, one loop trains them all."""

from counterpoint.markers import Given, Use
from counterpoint.packs import moved

__all__ = ["Given", "Use", "build", "encoded", "hookimpl", "load", "outputs", "tokenizer"]

moved.find()  # what packs import by its former name


def build(kind: str, name: str, **parameters):
    """A component by its kind and name, such as build("objective", "nt_xent", temperature=0.1).

    Parameters are checked as a recipe's are; ComponentError for a name or a value that is none.
    """
    from counterpoint.packs.registry import installed
    from counterpoint.recipe.given import checked

    component = installed().find(kind, name)
    return component.build(**checked(component, parameters))


def __getattr__(name: str):
    """What `homes` lists is imported when they are first used, since it needs torch or pluggy."""
    if name == "__version__":
        from importlib.metadata import version

        return version("counterpoint")
    homes = {
        "outputs": "counterpoint.by_hand.outputs",
        "encoded": "counterpoint.by_hand.views",
        "load": "counterpoint.towers.loading",
        "tokenizer": "counterpoint.towers.loading",
        "hookimpl": "counterpoint.hookspecs",
    }
    if name not in homes:
        raise AttributeError(f"module 'counterpoint' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(homes[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
