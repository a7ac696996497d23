"""Modules that packs may import and that have moved: their former names find them for as long as the API promises it.

A finder at the end of `sys.meta_path`, which is asked only when nobody else knows a name, so that it costs nothing.
docs/pack_api.md lists what packs may import.
"""

import sys

MOVED = {  # in API 1
    "counterpoint.importing": "counterpoint.packs.importing",
    "counterpoint.objectives.rows": "counterpoint.objectives.mechanisms.rows",
}


class Moved:
    """Finds and loads modules by the names that they had."""

    @staticmethod
    def find_spec(name: str, path=None, target=None):
        if name in MOVED:
            from importlib.machinery import ModuleSpec

            return ModuleSpec(name, Moved)

    @staticmethod
    def create_module(spec) -> None:
        """Python makes an empty module, which the real one takes the place of."""

    @staticmethod
    def exec_module(module) -> None:
        from importlib import import_module

        sys.modules[module.__name__] = import_module(MOVED[module.__name__])


def find() -> None:
    """Have the former names found from now on."""
    if Moved not in sys.meta_path:
        sys.meta_path.append(Moved)
