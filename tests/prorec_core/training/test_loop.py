from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from prorec_core.config import Training
from prorec_core.data.sequences import IntArray, Sequences, Split
from prorec_core.errors import UserError
from prorec_core.progress import Progress, Report, silent
from prorec_core.sequential.transformer import Dropout
from prorec_core.training.batching import HistoryBatch
from prorec_core.training.checkpoint import Checkpoint, load_tensors, save_tensors
from prorec_core.training.loop import TARGET, _optimizer, fit_next_item, train, validation_measures, validation_targets
from prorec_core.training.runtime import Runtime

CPU = torch.device("cpu")
CONFIG = Training(epochs=5, learning_rate=0.05, warmup_steps=3, precision="float32")


class Net(nn.Module):
    """Two layers with dropout between, a vector, and a parameter that never gets a gradient."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 1)
        self.dropout = Dropout(0.3)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.dropout(self.first(x).relu()))
        return out


class CutError(Exception):
    """A crash."""


def _batches(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 4, generator=generator) for _ in range(4)]


def _fit(
    net: Net, folder: Path | None, config: Training = CONFIG, report: Report = silent, cut_at_step: int | None = None
) -> list[dict[str, Any]]:
    held_out, steps = _batches(99)[0], 0

    def losses(batch: Tensor) -> Mapping[str, Tensor]:
        nonlocal steps
        steps += 1
        if steps == cut_at_step:
            raise CutError
        error = (net(batch)[:, 0] - batch.sum(1)).square().mean()
        return {"loss": error, "loss_again": error.detach()}

    def validate() -> Mapping[str, float]:
        return {TARGET: round(-float((net(held_out)[:, 0] - held_out.sum(1)).square().mean()), 6)}

    return train(net, losses, _batches, validate, config, 7, Runtime(CPU, report, folder))


def _cut_after(epoch: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == epoch:
            raise CutError

    return report


def _same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_a_training_cut_after_an_epoch_goes_on_bit_for_bit(tmp_path: Path, epoch: int) -> None:
    whole, cut, again = Net(), Net(), Net()
    records = _fit(whole, None)
    with pytest.raises(CutError):
        _fit(cut, tmp_path, report=_cut_after(epoch))
    assert _fit(again, tmp_path) == records
    assert _same(whole, again)


@pytest.mark.parametrize("step", [1, 6, 12, 20])
def test_a_training_cut_within_an_epoch_goes_on_bit_for_bit(tmp_path: Path, step: int) -> None:
    whole, again = Net(), Net()
    records = _fit(whole, None)
    for further in (step, 3):
        with pytest.raises(CutError):
            _fit(Net(), tmp_path, cut_at_step=further)
    torch.manual_seed(12345)
    assert _fit(again, tmp_path) == records
    assert _same(whole, again)


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    whole, again = Net(), Net()
    records = _fit(whole, tmp_path)
    assert _fit(again, tmp_path, cut_at_step=1) == records
    assert _same(whole, again)
    assert not again.training


def test_the_state_of_the_global_random_numbers_does_not_matter() -> None:
    nets = Net(), Net()
    torch.manual_seed(3)
    first = _fit(nets[0], None)
    torch.rand(17)
    assert _fit(nets[1], None) == first
    assert _same(*nets)


def test_every_epoch_is_reported_with_what_was_measured() -> None:
    seen: list[Progress] = []
    records = _fit(Net(), None, report=seen.append)
    assert [(p.step, p.total, p.unit) for p in seen] == [(n, 5, "epoch") for n in range(1, 6)]
    assert [{"epoch": p.step, **p.metrics} for p in seen] == records
    assert set(records[0]) == {"epoch", "loss", "loss_again", TARGET}
    assert records[-1]["loss"] < records[0]["loss"]
    assert json.loads(json.dumps(records)) == records


class Scripted:
    """Validation that follows a script and remembers the weights that it saw."""

    def __init__(self, net: Net, scores: Sequence[float]) -> None:
        self.net, self.scores, self.seen = net, scores, list[dict[str, Tensor]]()

    def __call__(self) -> Mapping[str, float]:
        assert not self.net.training
        assert not torch.is_grad_enabled()
        self.seen.append({name: tensor.clone() for name, tensor in self.net.state_dict().items()})
        return {TARGET: self.scores[len(self.seen) - 1]}


def _losses(net: Net) -> Callable[[Tensor], Mapping[str, Tensor]]:
    return lambda batch: {"loss": (net(batch)[:, 0] - batch.sum(1)).square().mean()}


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.1, 0.4, 0.3, 0.2, 0.9, 0.0], 2, 4, 2),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 1, 2, 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6, 6),
        ([0.3, 0.2, 0.4, 0.2, 0.2, 0.2], 2, 5, 3),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 2, 6, 6),
        ([0.0, 0.0, 0.0, 0.0, 0.1, 0.0], 2, 6, 5),
    ],
)
def test_early_stopping_brings_back_the_best_epoch(scores: list[float], patience: int, epochs: int, best: int) -> None:
    net = Net()
    script = Scripted(net, scores)
    config = CONFIG.model_copy(update={"epochs": 6, "patience": patience})
    records = train(net, _losses(net), _batches, script, config, 7, Runtime(CPU))
    assert [record[TARGET] for record in records] == scores[:epochs]
    assert all(torch.equal(tensor, script.seen[best - 1][name]) for name, tensor in net.state_dict().items())


def test_a_loss_that_is_no_number_is_the_user_s_to_cure() -> None:
    net = Net()
    config = CONFIG.model_copy(update={"learning_rate": 1.0})

    def losses(batch: Tensor) -> Mapping[str, Tensor]:
        return {"loss": net(batch).mean() * torch.nan}

    with pytest.raises(UserError, match=r"no longer a number in epoch 1.*learning_rate"):
        train(net, losses, _batches, lambda: {TARGET: 0.0}, config, 7, Runtime(CPU))


def test_a_last_step_that_spoils_the_weights_leaves_the_epoch_before(tmp_path: Path) -> None:
    """Its loss is a number, and a validation that is lucky would take such weights for the best."""
    seen = 0

    def losses(net: Net) -> Callable[[Tensor], Mapping[str, Tensor]]:
        def loss(batch: Tensor) -> Mapping[str, Tensor]:
            nonlocal seen
            seen += 1
            found = net(batch).square().mean()
            if seen == 8:
                net.first.weight.register_hook(lambda gradient: gradient * torch.nan)
            return {"loss": found}

        return loss

    spoiled, again, runtime = Net(), Net(), Runtime(CPU, silent, tmp_path)
    with pytest.raises(UserError, match=r"a weight is no longer a number in epoch 2.*learning_rate"):
        train(spoiled, losses(spoiled), _batches, lambda: {TARGET: float(seen)}, CONFIG, 7, runtime)
    records = train(again, losses(again), _batches, lambda: {TARGET: float(seen)}, CONFIG, 7, runtime)
    assert [record[TARGET] for record in records] == [4, 12, 16, 20, 24], "the first epoch was not trained again"
    assert all(tensor.isfinite().all() for tensor in again.state_dict().values())


def test_nothing_to_train_on_is_said() -> None:
    net = Net()
    with pytest.raises(UserError, match="nothing to train on"):
        train(net, _losses(net), lambda _: [], lambda: {TARGET: 0.0}, CONFIG, 7, Runtime(CPU))


class Drift(nn.Module):
    """A loss whose gradient is 1 everywhere, so that every step of AdamW has the length of the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))

    def losses(self, _: int) -> Mapping[str, Tensor]:
        return {"loss": self.fast.sum() + self.slow.sum()}


@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
def test_warm_up_and_cosine(warmup: int) -> None:
    drift, steps, epochs = Drift(), 4, 3
    config = Training(
        epochs=epochs, learning_rate=1e-3, warmup_steps=warmup, patience=9, weight_decay=0.0, precision="float32"
    )
    train(
        drift,
        drift.losses,
        lambda _: list(range(steps)),
        iter_scores(),
        config,
        0,
        Runtime(CPU),
        {drift.slow: 0.25},
    )
    total = steps * epochs
    factors = [
        min(1, (step + 1) / max(warmup, 1)) * 0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total)
    ]
    torch.testing.assert_close(drift.fast.detach(), torch.full((2,), -1e-3 * sum(factors)), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(drift.slow.detach(), torch.full((3,), -2.5e-4 * sum(factors)), rtol=1e-4, atol=1e-8)


def iter_scores() -> Callable[[], Mapping[str, float]]:
    """Validation that always improves."""
    count = 0

    def validate() -> Mapping[str, float]:
        nonlocal count
        count += 1
        return {TARGET: float(count)}

    return validate


def test_vectors_do_not_decay() -> None:
    net = nn.Linear(3, 3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    config = Training(epochs=1, learning_rate=0.1, weight_decay=0.5, warmup_steps=0, precision="float32")
    train(
        net,
        lambda _: {"loss": 0 * (net.weight.sum() + net.bias.sum())},
        lambda _: [0],
        iter_scores(),
        config,
        0,
        Runtime(CPU),
    )
    torch.testing.assert_close(net.weight.detach(), 0.95 * before["weight"])
    assert torch.equal(net.bias, before["bias"])


def _checkpoints(folder: Path) -> list[Path]:
    """The files that are there, the newest last."""
    return sorted(folder.iterdir())


def _put(path: Path, content: bytes) -> None:
    """In the place of a checkpoint another content, named after it as a whole one is."""
    path.unlink()
    name = f"{path.name[:12]}-{hashlib.sha256(content).hexdigest()}.safetensors"
    (path.parent / name).write_bytes(content)


def _damaged(path: Path, kind: str) -> None:
    content = path.read_bytes()
    tensors = safetensors.torch.load(content)
    notes = {"notes": json.dumps({"of": path.parent.name, "records": [{TARGET: 1.0}], "step": 1})}
    replacement = {
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "no safetensors": b"hello" * 100,
        "no notes": safetensors.torch.save(tensors),
        "notes are no JSON": safetensors.torch.save(tensors, metadata={"notes": "{"}),
        "another training's": safetensors.torch.save(
            tensors, metadata={"notes": json.dumps({"of": "another", "records": [], "step": 0})}
        ),
        "a larger net's": _of_another(8, path.parent.name),
        "a smaller net's": _of_another(5, path.parent.name),
        "no best": safetensors.torch.save(
            {name: tensor for name, tensor in tensors.items() if not name.startswith("best.")}, metadata=notes
        ),
        "other moments": safetensors.torch.save(
            {name: torch.zeros(2, 2) if name.endswith(".exp_avg") else tensor for name, tensor in tensors.items()},
            metadata=notes,
        ),
    }
    _put(path, replacement[kind])


def _of_another(width: int, place: str) -> bytes:
    net = Net(width)
    tensors = {f"{kind}.{name}": tensor + 1 for kind in ("model", "best") for name, tensor in net.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={"notes": json.dumps({"of": place, "records": [], "step": 0})})


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "cut short",
        "no safetensors",
        "no notes",
        "notes are no JSON",
        "another training's",
        "a larger net's",
        "a smaller net's",
        "no best",
        "other moments",
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_as_good_as_none(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, again = Net(), Net()
    records = _fit(whole, None)
    with pytest.raises(CutError):
        _fit(Net(), tmp_path, report=_cut_after(2))
    for path in _checkpoints(tmp_path):
        _damaged(path, kind)
    assert _fit(again, tmp_path) == records
    assert _same(whole, again)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: a checkpoint is damaged or of another training (epoch-000002, epoch-000001): "
        "training starts from the beginning"
    ]


def _flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CutError):
        _fit(Net(), tmp_path, report=_cut_after(3))
    before, last = _checkpoints(tmp_path)
    draw, size = random.Random(0), last.stat().st_size
    for number in range(200):
        place, bit = draw.randrange(size), draw.randrange(8)
        _flip(last, place, bit)
        net = Net()
        found = Checkpoint(tmp_path).load(net, _optimizer(net, CONFIG, {}), CPU)
        assert found is not None and len(found[1]["records"]) == 2, f"bit {bit} of byte {place}"
        assert len(caplog.records) == number + 1
        _flip(last, place, bit)
    assert caplog.records[0].getMessage() == (
        f"{tmp_path}: a checkpoint is damaged or of another training (epoch-000003): "
        "training goes on from the one before, epoch-000002"
    )
    whole, again = Net(), Net()
    records = _fit(whole, None)
    _flip(last, size // 2, 3)
    assert _fit(again, tmp_path) == records and _same(whole, again)
    assert [path.name[:12] for path in _checkpoints(tmp_path)] == ["epoch-000004", "epoch-000005"]
    assert before not in _checkpoints(tmp_path)


def test_two_checkpoints_whose_contents_changed_places_are_both_refused(tmp_path: Path) -> None:
    whole, again = Net(), Net()
    records = _fit(whole, None)
    with pytest.raises(CutError):
        _fit(Net(), tmp_path, report=_cut_after(3))
    first, second = _checkpoints(tmp_path)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert Checkpoint(tmp_path).load(again, _optimizer(again, CONFIG, {}), CPU) is None
    assert _fit(again, tmp_path) == records and _same(whole, again)


def test_a_crash_while_a_checkpoint_is_written_leaves_the_ones_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = Net(), Net()
    records = _fit(whole, None)
    with pytest.raises(CutError):
        _fit(Net(), tmp_path, report=_cut_after(2))
    before = {path: path.read_bytes() for path in _checkpoints(tmp_path)}

    def crash(_: int) -> None:
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(CutError):
            _fit(Net(), tmp_path)
    assert {path: path.read_bytes() for path in _checkpoints(tmp_path)} == before
    # A kill leaves what was written so far under a name of its own.
    (tmp_path / ".epoch-000003-ab.safetensors.x1").write_bytes(b"half")
    assert _fit(again, tmp_path) == records
    assert _same(whole, again)
    assert [path.name[:12] for path in _checkpoints(tmp_path)] == ["epoch-000004", "epoch-000005"]


def test_without_a_folder_nothing_is_kept() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    Checkpoint(None).save(net, net.state_dict(), optimizer, {}, 1)
    assert Checkpoint(None).load(net, optimizer, CPU) is None


def test_tensors_come_back_and_equal_ones_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 4).t(), "a": torch.arange(3), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tmp_path / "1.safetensors", tensors)
    save_tensors(tmp_path / "2.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    found = load_tensors(tmp_path / "1.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_tensors_that_cannot_be_read_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    for name in ("broken", "missing"):
        with pytest.raises(UserError, match=f"{name}.safetensors: cannot read"):
            load_tensors(tmp_path / f"{name}.safetensors")


def test_without_validation_all_epochs_count_and_the_last_one_stays(tmp_path: Path) -> None:
    def fit(net: Net, folder: Path | None, config: Training, cut_at_epoch: int | None = None) -> list[dict[str, Any]]:
        def losses(batch: Tensor) -> Mapping[str, Tensor]:
            return {"loss": (net(batch)[:, 0] - batch.sum(1)).square().mean()}

        report = silent if cut_at_epoch is None else _cut_after(cut_at_epoch)
        return train(net, losses, _batches, None, config, 7, Runtime(CPU, report, folder))

    hasty = CONFIG.model_copy(update={"patience": 1})
    whole, again, measured = Net(), Net(), Net()
    records = fit(whole, None, hasty)
    assert [set(record) for record in records] == [{"epoch", "loss"}] * 5
    with pytest.raises(CutError):
        fit(Net(), tmp_path, hasty, cut_at_epoch=2)
    assert fit(again, tmp_path, hasty) == records
    assert _same(whole, again)
    # The same steps as with a validation that finds each epoch better than the one before.
    train(
        measured,
        lambda batch: {"loss": (measured(batch)[:, 0] - batch.sum(1)).square().mean()},
        _batches,
        Scripted(measured, [0.1, 0.2, 0.3, 0.4, 0.5]),
        CONFIG,
        7,
        Runtime(CPU),
    )
    assert _same(whole, measured)


def test_measures_of_known_ranks() -> None:
    found = validation_measures(np.array([1, 2, 10, 11, 0], np.int32))
    assert found["validation_recall_at_10"] == 0.6
    gain = 1 + 1 / math.log2(3) + 1 / math.log2(11)
    assert found[TARGET] == round(gain / 5, 6)


@pytest.mark.parametrize("with_validation", [False, True])
def test_next_items_are_learnt_from_what_may_be_trained_on(checkerboard: Sequences, with_validation: bool) -> None:
    """Every epoch asks for every training item but each user's first; ranks are asked of what is held back."""
    sequences = checkerboard.with_validation_in_training() if with_validation else checkerboard
    net, asked, ranked = nn.Linear(1, 1), [0] * sequences.n_items, 0

    def losses(batch: HistoryBatch) -> Mapping[str, Tensor]:
        assert batch.targets_BL is not None and not torch.is_autocast_enabled("cpu")
        for item in batch.targets_BL[batch.targets_BL >= 0].tolist():
            asked[item] += 1
        return {"loss": net(torch.ones(1, 1)).sum()}

    def ranks(histories: Sequences, targets: IntArray) -> IntArray:
        nonlocal ranked
        ranked += 1
        assert np.array_equal(histories.offsets, checkerboard.histories(Split.VALIDATION).offsets)
        assert np.array_equal(targets, checkerboard.targets(Split.VALIDATION))
        return np.full(len(targets), ranked % 2, np.int32)

    config = Training(epochs=3, precision="float32", max_history=50)
    records = fit_next_item(net, losses, ranks, sequences, config, 0, Runtime(CPU))
    training = sequences.training()
    first = np.bincount(training.items[training.offsets[:-1]], minlength=sequences.n_items)
    assert asked == (3 * (np.bincount(training.items, minlength=sequences.n_items) - first)).tolist()
    assert [record.get(TARGET) for record in records] == ([None] * 3 if with_validation else [1.0, 0.0, 1.0])


@pytest.mark.parametrize("most", [4, 30, 31])
def test_validation_asks_about_as_many_users_as_it_may(most: int) -> None:
    sequences = Sequences(np.arange(150, dtype=np.int32) % 40, np.arange(0, 151, 5), 40)
    config, asked = CONFIG.model_copy(update={"validation_users": most, "epochs": 2}), []
    net = Net()

    def ranks(histories: Sequences, targets: IntArray) -> IntArray:
        # Whose items these are, their targets are: each history goes on by one.
        assert (histories.items[histories.offsets[1:] - 1] + 1 == targets).all()
        asked.append(targets.tolist())
        return np.ones(len(targets), np.int32)

    users = validation_targets(sequences, config.validation_users, 3)
    fit_next_item(
        net, lambda batch: {"loss": net.first.weight.sum()}, ranks, sequences, config, 0, Runtime(CPU), asked=users
    )
    assert (users is None) == (most >= 30)
    assert asked[0] == asked[1]
    assert len(asked[0]) == min(most, 30)
    assert users is None or (np.diff(users) > 0).all()


_LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from prorec_core.training.checkpoint import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_tensors(Path(sys.argv[1]), {"weights": torch.zeros(1000)})
except OSError as error:
    print(error.errno, error.strerror, error.filename)
"""


def test_tensors_that_the_disk_does_not_take_are_the_systems_error_and_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    found = subprocess.run([sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout == f"{errno.EFBIG} {os.strerror(errno.EFBIG)} {path}\n"
    assert list(tmp_path.iterdir()) == []
