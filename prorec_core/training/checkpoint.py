"""Tensors in files, and a training's state at the end of an epoch. Knows safetensors; knows nothing of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from prorec_core.artifacts import write_bytes
from prorec_core.errors import UserError


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all; equal tensors give equal bytes."""
    write_bytes(path, safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))


def load_tensors(path: Path, device: torch.device | None = None) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: the file is missing or is no safetensors file.
    """
    try:
        return safetensors.torch.load_file(path, device=str(device or "cpu"))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"cannot read the tensors ({error})", place=str(path), cure="Run the stage that writes them again"
        ) from error


class Checkpoint:
    """A training's state after an epoch: model, best model so far, optimizer and what was measured."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / "checkpoint.safetensors" if folder else None

    def save(
        self,
        model: nn.Module,
        best: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        notes: Mapping[str, Any],
    ) -> None:
        """Write the state of the epoch that has just ended over that of the one before."""
        if self._path is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_bytes(self._path, safetensors.torch.save(plain, metadata={"notes": json.dumps(notes)}))

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Put model and optimizer back to where they were; returns the best model's tensors and the notes.

        None, and neither is touched, when there is no checkpoint, or none that fits: then training starts from
        the beginning.
        """
        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                notes: dict[str, Any] = json.loads((file.metadata() or {})["notes"])
            tensors = safetensors.torch.load_file(self._path, device=str(device))
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under("optimizer.", tensors).items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
        except (SafetensorError, KeyError, ValueError, OSError):
            return None
        weights, best = _under("model.", tensors), _under("best.", tensors)
        if not (_alike(weights, model.state_dict()) and _alike(best, weights) and _belongs(state, optimizer)):
            return None
        model.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return best, notes


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _alike(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return {name: tensor.shape for name, tensor in first.items()} == {
        name: tensor.shape for name, tensor in second.items()
    }


def _belongs(state: Mapping[int, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer) -> bool:
    """Whether every moment has the shape of the parameter that it is kept for."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return all(
        index < len(parameters) and tensor.shape in {parameters[index].shape, torch.Size()}
        for index, moments in state.items()
        for tensor in moments.values()
    )
