"""A new implementation is its module and an entry in a registry: no other line changes, and keys follow it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from prorec.tasks.execution import sources
from prorec.tasks.stages.pipeline import STAGES
from prorec_core.config import Experiment, QuantizeConfig
from prorec_core.data.sequences import Sequences
from prorec_core.errors import UserError
from prorec_core.quantization.quantized import Quantized
from prorec_core.quantization.stage import fitted_quantizer, quantize
from prorec_core.registry import QUANTIZERS, SEQUENTIAL_MODELS
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.trained import CollaborativeModel
from prorec_core.stages.inputs import QUANTIZED
from prorec_core.training.runtime import Runtime


def test_a_new_quantizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'residual_kmeans'"):
        Experiment.model_validate({"quantize": {"method": "signs"}})
    monkeypatch.setitem(QUANTIZERS.places, "signs", "tests.toys:Signs")
    experiment = Experiment.model_validate({"quantize": {"method": "signs", "levels": 3, "codes": 2}})
    embeddings = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    quantize(experiment.quantize, embeddings, [str(item) for item in range(40)], 0).save(tmp_path)
    found = Quantized.load(tmp_path)
    assert len(np.unique(found.table.codes, axis=0)) == 40 and found.quality["method"] == "signs"
    assert np.array_equal(fitted_quantizer(found).encode(embeddings), found.table.codes[:, :3])
    files = {path.name for path in sources.source_files((STAGES["quantize"].module,), experiment)}
    assert "toys.py" in files and "residual_kmeans.py" not in files


def test_every_embedding_that_can_be_chosen_is_read_from_somewhere() -> None:
    assert set(QUANTIZED) == set(get_args(QuantizeConfig.model_fields["embedding"].annotation))
    assert {stage for stages in QUANTIZED.values() for stage in stages} <= set(STAGES["train_generator"].reads)


def test_a_new_sequential_model(monkeypatch: pytest.MonkeyPatch, checkerboard: Sequences, tmp_path: Path) -> None:
    monkeypatch.setitem(SEQUENTIAL_MODELS.places, "last_item", "tests.toys:LastItem")
    given = {"model": "last_item", "dim": 8, "epochs": 1, "precision": "float32"}
    config = Experiment.model_validate({"collaborative": given}).collaborative
    train_collaborative(config, checkerboard, 0, Runtime(torch.device("cpu"))).save(tmp_path)
    model, table = CollaborativeModel.load(tmp_path).sequential_model(torch.device("cpu"))
    assert type(model).__name__ == "LastItem" and table.shape == (checkerboard.n_items, 8)
    experiment = Experiment.model_validate({"collaborative": given})
    for stage in ("train_collaborative", "align", "train_generator", "evaluate"):
        files = {path.name for path in sources.source_files((STAGES[stage].module,), experiment)}
        assert "toys.py" in files and not files & {"sasrec.py", "din.py"}, stage


def _own_method(folder: Path, name: str, *imports: str) -> None:
    """A package with a model and what it imports, and a module beside the package."""
    (folder / name).mkdir()
    for file in ("__init__", "scale", "deeper", "unused"):
        (folder / name / f"{file}.py").write_text("")
    (folder / f"{name}_beside.py").write_text("SCALE = 1\n")
    (folder / name / "scale.py").write_text("from . import deeper\nSCALE = 1\n")
    (folder / name / "model.py").write_text("\n".join([*imports, "class Mine: ...", ""]))


@pytest.mark.parametrize(
    "imported", ["from .scale import SCALE", "from . import scale", "from own1 import scale", "import own1.scale"]
)
def test_what_a_method_from_elsewhere_imports_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, imported: str
) -> None:
    """Whichever way it imports it, and wherever it lies: changed code never passes for cached work."""
    sources._imports.cache_clear()
    _own_method(tmp_path, "own1", imported, "import own1_beside")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SEQUENTIAL_MODELS.places, "outside", "own1.model:Mine")
    experiment = Experiment.model_validate({"collaborative": {"model": "outside"}})
    entries = (STAGES["train_collaborative"].module,)
    found = sources.source_files(entries, experiment)
    files = {path.relative_to(tmp_path).as_posix() for path in found if path.is_relative_to(tmp_path)}
    assert (
        files >= {"own1/model.py", "own1/scale.py", "own1/deeper.py", "own1_beside.py"}
        and "own1/unused.py" not in files
    )
    before = sources.source_hash(entries, experiment)
    for changed in ("own1/scale.py", "own1/deeper.py", "own1_beside.py"):
        (tmp_path / changed).write_text("SCALE = 2\n" + (tmp_path / changed).read_text())
        after = sources.source_hash(entries, experiment)
        assert after != before, changed
        before = after


def test_a_method_in_a_folder_without_init_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Python imports it; what only has the name of a library is not taken for what lies beside it."""
    for folder in ("own2", "own2_helpers", "json"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own2_helpers" / "some.py").write_text("")
    (tmp_path / "own2" / "model.py").write_text("import json\nfrom own2_helpers.some import X\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SEQUENTIAL_MODELS.places, "outside", "own2.model:Mine")
    experiment = Experiment.model_validate({"collaborative": {"model": "outside"}})
    found = sources.source_files((STAGES["train_collaborative"].module,), experiment)
    files = {path.relative_to(tmp_path).as_posix() for path in found if path.is_relative_to(tmp_path)}
    assert files == {"own2/model.py", "own2_helpers/some.py"} and not any(path.parent.name == "json" for path in found)


@pytest.mark.parametrize("module", ["module_that_is_nowhere", "tests.nowhere", "sys"])
def test_a_method_that_is_nowhere_is_told(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(SEQUENTIAL_MODELS.places, "lost", f"{module}:Mine")
    experiment = Experiment.model_validate({"collaborative": {"model": "lost"}})
    with pytest.raises(UserError, match=f"{module} of a registered method is nowhere"):
        sources.source_files((STAGES["train_collaborative"].module,), experiment)
