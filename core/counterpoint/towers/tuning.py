"""Which parameters of a tower learn: all, none, some by name, or low-rank adapters beside them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from counterpoint.errors import ComponentError
from counterpoint.towers.tower import Tower


def tune(tower: Tower, train: str | list[str], lora=None, head: str | list[str] = "all") -> None:
    """Choose what learns in encoder and head: "all", "none", or the parameters whose names match; then add LoRA.

    Low-rank adapters (Hu et al., 2022) come from peft; the base parameters that `train` names keep learning beside
    them. What a head freezes by itself stays frozen. Raises ComponentError when a pattern or a target matches nothing,
    with the names there are.
    """
    if isinstance(train, str) and train == "all" and lora is not None:
        train = "none"
    learning = _chosen(tower.encoder, train, f"tune.{tower.modality}.train")
    for name, parameter in tower.encoder.named_parameters():
        parameter.requires_grad_(name in learning)
    learning = _chosen(tower.head, head, f"tune.{tower.modality}.head")
    for name, parameter in tower.head.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in learning)
    if lora is not None:
        _add_lora(tower, lora, {name for name, p in tower.encoder.named_parameters() if p.requires_grad})
    tower.train(tower.training)


def _chosen(module: nn.Module, which: str | list[str], place: str) -> set[str]:
    """The names of its parameters that match a pattern."""
    patterns = {"all": ["*"], "none": []}.get(which, which) if isinstance(which, str) else which
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise ComponentError(f"{place}: no parameter matches {pattern!r}; {_some(names)}")
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _add_lora(tower: Tower, lora, learning: set[str]) -> None:
    try:
        import peft
    except ImportError:
        raise ComponentError(f"tune.{tower.modality}.lora: needs peft; pip install 'counterpoint[lora]'") from None
    parameters = {name: p for name, p in tower.encoder.named_parameters()}
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    try:
        peft.inject_adapter_in_model(config, tower.encoder)
    except ValueError:
        names = [name for name, m in tower.encoder.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)]
        raise ComponentError(
            f"tune.{tower.modality}.lora.targets: no module matches {', '.join(lora.targets)}; {_some(names)}"
        ) from None
    for name in learning:  # peft freezes everything but its adapters
        parameters[name].requires_grad_(True)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:12])
    return f"there are: {shown}{', ...' if len(names) > 12 else ''}"
