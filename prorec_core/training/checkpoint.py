"""Tensors in files, and a training's state at the end of an epoch. Knows safetensors; knows nothing of models."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prorec_core.artifacts import sha256_file, written_whole
from prorec_core.errors import UserError
from prorec_core.training.workers import ALONE, Workers

_SHORT = len("epoch-000000")
_SYSTEM_ERROR = re.compile(r"\bos error (\d+)\b")
"""The number of the system's error in what the writer of safetensors says of it."""
_log = logging.getLogger(__name__)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all; equal tensors give equal bytes."""
    with written_whole(path) as draft:
        _write(draft.path, tensors)


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        # To the file at once: made in memory first they would stand there twice more.
        safetensors.torch.save_file(plain, path, metadata=metadata)
    except SafetensorError as error:
        if found := _SYSTEM_ERROR.search(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


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
    """A training's state after an epoch: model, best model so far, optimizer and what was measured.

    The two latest are kept. The name of each holds the number of its epoch and the hash of all its bytes, so that one
    that was damaged is known; its notes hold the name of its folder, so that one of another training is.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def save(
        self,
        model: nn.Module,
        best: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        notes: Mapping[str, Any],
        epoch: int,
    ) -> None:
        """Write the state of the epoch that has just ended, and remove all but this one and the one before."""
        if self._folder is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        name = f"epoch-{epoch:06d}"
        with written_whole(self._folder / name) as draft:
            _write(draft.path, tensors, {"notes": json.dumps({"of": self._folder.name, **notes})})
            latest = draft.target = self._folder / f"{name}-{sha256_file(draft.path)}.safetensors"
        before = [path for path in self._found() if path.name[:_SHORT] < latest.name[:_SHORT]][:1]
        # A writer that was killed leaves a file too; nobody else is at work here.
        for path in [*self._found(), *self._folder.glob(".epoch-*")]:
            if path not in {latest, *before}:
                path.unlink()

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, workers: Workers = ALONE
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Put model and optimizer back to the newest state that is whole; returns the best model's tensors and notes.

        None, and neither is touched, when there is no checkpoint, or none that fits: then training starts from
        the beginning. What is passed over is said. Of several workers the first one finds it, for all of them.

        Raises:
            UserError: another worker than the first cannot read it.
        """
        found = self._newest(model, optimizer, device) if workers.first else None
        name = workers.told("" if found is None else found[0].name, device)
        if name and found is None and self._folder is not None:
            found = self._put_back(self._folder / name, model, optimizer, device)
        if not workers.every(bool(name) == (found is not None), device):
            raise UserError(
                f"not every worker can read the checkpoint {name}",
                place=str(self._folder),
                cure="Have all machines share this folder",
            )
        return None if found is None else found[1:]

    def _newest(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        damaged = []
        for path in self._found():
            found = self._put_back(path, model, optimizer, device)
            if found is None:
                damaged.append(path)
                continue
            if damaged:
                _log.warning("%s: training goes on from the one before, %s", _told(damaged), path.name[:_SHORT])
            return found
        if damaged:
            _log.warning("%s: training starts from the beginning", _told(damaged))
        return None

    def _put_back(
        self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        state = self._read(path, model, optimizer, device)
        if state is None:
            return None
        weights, moments, best, notes = state
        model.load_state_dict(weights)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return path, best, notes

    def _found(self) -> list[Path]:
        """The checkpoints that are there, the newest first."""
        return sorted(self._folder.glob("epoch-*.safetensors"), reverse=True) if self._folder else []

    def _read(
        self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], dict[str, Tensor], dict[str, Any]] | None:
        """Weights, moments of the optimizer, the best weights and the notes of one; None if it cannot be used."""
        assert self._folder is not None
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
                return None
            length = int.from_bytes(content[:8], "little")
            notes: dict[str, Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["notes"])
            if notes.pop("of") != self._folder.name:
                return None
            tensors = {name: tensor.to(device) for name, tensor in safetensors.torch.load(content).items()}
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under("optimizer.", tensors).items():
                index, key = name.split(".", 1)
                moments.setdefault(int(index), {})[key] = tensor
        except (SafetensorError, KeyError, ValueError, OSError):
            return None
        weights, best = _under("model.", tensors), _under("best.", tensors)
        fits = _alike(weights, model.state_dict()) and _alike(best, weights) and _belongs(moments, optimizer)
        return (weights, moments, best, notes) if fits else None


def _told(damaged: list[Path]) -> str:
    names = ", ".join(path.name[:_SHORT] for path in damaged)
    return f"{damaged[0].parent}: a checkpoint is damaged or of another training ({names})"


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
