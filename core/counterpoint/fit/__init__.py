"""From a recipe to a run: assemble, check, try, train, score, merge.

from counterpoint.fit import fit
run = fit(load("recipe.yaml"))
"""


def __getattr__(name: str):
    """`fit` itself, which imports torch when it is first asked for."""
    if name == "fit":
        from counterpoint.fit.run import fit

        return fit
    raise AttributeError(f"module 'counterpoint.fit' has no attribute {name!r}")
