"""A generator that goes on from an earlier one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prorec_core.alignment.stage import align
from prorec_core.data.sequences import Sequences, Split
from prorec_core.errors import UserError
from prorec_core.generation.candidates import find_candidates
from prorec_core.generation.stage import train_generator
from prorec_core.generation.trained import TrainedGenerator, restore_generator
from prorec_core.sequential.stage import train_collaborative
from prorec_core.sequential.start import Start
from prorec_core.training.runtime import Runtime
from tests.prorec_core.generation.conftest import align_config, shape_config

CPU = torch.device("cpu")
STILL = {"epochs": 1, "learning_rate": 1e-12, "dropout": 0.0}


@pytest.fixture(scope="module", params=["timeline", "encoder_decoder"])
def base(request: Any, make_inputs: Any) -> tuple[dict[str, Any], TrainedGenerator]:
    shape = {"architecture": request.param, "ranker": False, "warm_start": False}
    return shape, train_generator(make_inputs(config={**shape, "epochs": 2}), 0, Runtime(CPU))


def test_it_starts_where_the_other_ended(
    base: tuple[dict[str, Any], TrainedGenerator], make_inputs: Any, checkerboard: Sequences
) -> None:
    shape, before = base
    inputs = make_inputs(config={**shape, **STILL}, start=before.tensors)
    after = train_generator(inputs, 7, Runtime(CPU))
    histories = checkerboard.histories(Split.TEST)
    one, other = (
        find_candidates(restore_generator(each, inputs.codes, inputs.embeddings, CPU), histories, 10, 10)
        for each in (before, after)
    )
    np.testing.assert_allclose(one.generative_UC, other.generative_UC, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(one.generative(5)[0], other.generative(5)[0])


def test_one_that_distils_no_more_leaves_the_head_behind(
    base: tuple[dict[str, Any], TrainedGenerator], make_inputs: Any
) -> None:
    shape, before = base
    assert any(name.startswith("dense_queries.") for name in before.tensors)
    inputs = make_inputs(config={**shape, **STILL, "distill": {"beta": None}}, start=before.tensors)
    after = train_generator(inputs, 7, Runtime(CPU))
    assert not any(name.startswith("dense_queries.") for name in after.tensors)
    torch.testing.assert_close(after.tensors["heads.0"], before.tensors["heads.0"])
    again = make_inputs(config={**shape, **STILL}, start=after.tensors)
    with pytest.raises(UserError, match="another shape: of dense_queries"):
        train_generator(again, 7, Runtime(CPU))


def test_codes_that_are_new_begin_anew_and_others_are_carried(
    base: tuple[dict[str, Any], TrainedGenerator], make_inputs: Any
) -> None:
    shape, before = base
    codes = make_inputs().codes.copy()
    codes[0, 0] = codes[:, 0].max() + 1
    grown = train_generator(make_inputs(config={**shape, **STILL}, start=before.tensors, codes=codes), 0, Runtime(CPU))
    own, then = grown.tensors["heads.0"], before.tensors["heads.0"]
    assert len(own) == len(then) + 1
    torch.testing.assert_close(own[:-1], then)
    torch.testing.assert_close(own[-1], then.mean(0))
    anew = make_inputs(config={**shape, **STILL}, start=before.tensors, same_codes=False)
    found = train_generator(anew, 0, Runtime(CPU)).tensors
    assert not torch.allclose(found["heads.0"], then)
    torch.testing.assert_close(found["head_norm.weight"], before.tensors["head_norm.weight"])


def test_another_shape_is_refused(base: tuple[dict[str, Any], TrainedGenerator], make_inputs: Any) -> None:
    shape, before = base
    for change in ({"layers": 2}, {"decoder_layers": 2}):
        with pytest.raises(UserError, match=r"start_from: the model to start from is of another shape: .* generator"):
            train_generator(make_inputs(config={**shape, **STILL, **change}, start=before.tensors), 0, Runtime(CPU))


def test_stage_one_starts_where_the_other_ended(checkerboard: Sequences, stage_one: Any, make_inputs: Any) -> None:
    runtime, texts = Runtime(CPU), make_inputs().texts
    start = train_collaborative(shape_config(), checkerboard, 0, runtime)
    still = align_config().model_copy(update=STILL)
    after = align(still, checkerboard, start, texts, 3, runtime, base=Start(stage_one, np.arange(24)))
    np.testing.assert_allclose(after.integrated, stage_one.integrated, atol=1e-5)
    with pytest.raises(UserError, match=r"another shape: .* align"):
        align(still, checkerboard, start, texts[:, :5], 3, runtime, base=Start(stage_one, np.arange(24)))
