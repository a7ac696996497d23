"""Modules by name, where any name will do."""

from torch import nn


class NamedModules(nn.ModuleDict):
    """A ModuleDict that also takes the names of its own methods (`keys`, `type`, `train`): users name modalities."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        self._modules[key] = module
