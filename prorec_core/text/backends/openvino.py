"""OpenVINO on CPUs, by default with int8 products, for processors without bfloat16.

Knows how a transformer is exported, where exports are kept and how they are run; knows nothing of texts or items.

Weights are int8 with a scale a row. Where the processor multiplies int8 (VNNI), inputs of products are made int8 as
they come, with a scale for every 128 numbers of a token, so that no texts are needed to calibrate; the texts beside one
change no more than the order of sums does, which rounding to int8 may make larger. Elsewhere the same weights are
multiplied in float32.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prorec_core.artifacts import sha256_json, verify, write_bytes, write_manifest
from prorec_core.config_data import TextConfig
from prorec_core.errors import UserError
from prorec_core.text.backends.base import Backend
from prorec_core.text.location import encoder_digest

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_LIBRARIES = ("openvino", "nncf")
_MADE_BY = ("torch", "transformers")
_TELEMETRY = "openvino_telemetry"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUT = "last_hidden_state"
_GROUP = 128
"""Numbers of a token that share a scale when they are made int8."""
_TOKENS = 512
"""A batch: half of what is best for torch, as int8 numbers are fewer bytes."""
_FILES = ("model.xml", "model.bin")


class OpenVino(Backend):
    """Exports a model once, keeps it in the user's folder of caches, and runs it there on as many threads as torch."""

    @classmethod
    def libraries(cls) -> Mapping[str, str]:
        try:
            return {name: importlib.metadata.version(name) for name in _LIBRARIES}
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(
                f"{error.name} is not installed",
                place="text.backend=openvino",
                cure="Install prorec[openvino], or set text.backend=torch",
            ) from error

    @classmethod
    def device(cls, asked: str) -> torch.device:
        import torch

        del asked
        return torch.device("cpu")

    @classmethod
    def number_format(cls, precision: str, device: torch.device) -> str:
        return "int8" if precision == "auto" else "float32"

    @classmethod
    def tokens_a_batch(cls, device: torch.device) -> int:
        return _TOKENS

    @classmethod
    @contextmanager
    def computing(cls, model: SentenceTransformer, config: TextConfig, device: torch.device) -> Iterator[None]:
        inner = _transformer(model, config)
        low = cls.number_format(config.precision, device) == "int8"
        run = _compiled(_exported(model, inner, config, cls.libraries(), low=low), low=low)

        def forward(**given: Any) -> dict[str, torch.Tensor]:
            return {_OUTPUT: run({name: given[name] for name in _INPUTS if name in given})}

        # The model's own way in and out (tokens, pooling, norm) stays; for its layers stands what was compiled.
        inner.forward = forward
        try:
            yield
        finally:
            del inner.forward


def _transformer(model: SentenceTransformer, config: TextConfig) -> Any:
    """The layers that read tokens."""
    first: Any = model[0]
    how = getattr(first, "modality_config", {}).get("text", {})
    output = how.get("method_output_name")
    if how.get("method") != "forward" or output not in (_OUTPUT, [_OUTPUT], (_OUTPUT,)):
        raise UserError(
            "OpenVINO computes transformers that give a vector a token, and this model is none",
            place=f"text.model={config.model}",
            cure="Set text.backend=torch",
        )
    return first.model


def _exported(
    model: SentenceTransformer, inner: Any, config: TextConfig, libraries: Mapping[str, str], *, low: bool
) -> Path:
    """The file of the exported model; it is made where there is none that is whole."""
    made_by = {name: importlib.metadata.version(name) for name in _MADE_BY}
    what = {"encoder": encoder_digest(config.model), "int8": low, **libraries, **made_by}
    folder = _caches() / sha256_json(what)[:32]
    try:
        # A manifest is written last: without one, or where it does not fit, the export was not finished.
        if verify(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as scratch:
                _export(model, inner, Path(scratch) / _FILES[0], config, low=low)
                for name in _FILES:
                    write_bytes(folder / name, (Path(scratch) / name).read_bytes())
            write_manifest(folder, "openvino", what, {})
    except OSError as error:
        raise UserError(
            f"the exported encoder cannot be kept there ({error.strerror or error})",
            place=str(folder),
            cure="Make room, or set XDG_CACHE_HOME to a folder that can be written",
        ) from error
    return folder / _FILES[0]


def _caches() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("prorec") / "openvino"


def _export(model: SentenceTransformer, inner: Any, file: Path, config: TextConfig, *, low: bool) -> None:
    import torch

    example: Any = model.tokenizer(["one text", "another, longer text"], padding=True, return_tensors="pt")
    names = [name for name in _INPUTS if name in example]

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner(**dict(zip(names, given, strict=True)), return_dict=True)[_OUTPUT]
            return found

    with _silent():
        import openvino

        try:
            made = openvino.convert_model(Layers().eval(), example_input=tuple(example[name] for name in names))
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"OpenVINO cannot compute this model ({said[:200]})",
                place=f"text.model={config.model}",
                cure="Set text.backend=torch",
            ) from error
        for port, name in zip(made.inputs, names, strict=True):
            port.get_tensor().set_names({name})
        if low:
            import nncf

            made = nncf.compress_weights(made, mode=nncf.CompressWeightsMode.INT8_SYM)
        openvino.save_model(made, str(file), compress_to_fp16=False)


def _compiled(file: Path, *, low: bool) -> Any:
    """What computes the vectors of tokens, float32, shape (texts, tokens, width), from what the tokenizer gives."""
    import torch

    with _silent():
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if low else 0,
        }
        request = openvino.Core().compile_model(str(file), "CPU", settings).create_infer_request()

    def run(given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found = request.infer({name: tensor.numpy() for name, tensor in given.items()})
        return torch.from_numpy(found[0].copy())

    return run


@contextmanager
def _silent() -> Iterator[None]:
    """Without the libraries' notes, and without what reports their use to their maker over the network."""
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    logs = {name: logging.getLogger(name) for name in ("nncf", "transformers")}
    levels = {name: log.level for name, log in logs.items()}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for log in logs.values():
                log.setLevel(logging.ERROR)
            yield
    finally:
        for name, log in logs.items():
            log.setLevel(levels[name])
        if before is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before
