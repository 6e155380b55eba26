"""Digests of files that an experiment names beside its data. Knows fields; who asks here depends on no reader."""

from __future__ import annotations

from prorec_core.config import Experiment
from prorec_core.errors import UserError


def table_digest(experiment: Experiment) -> str:
    """Of a table of codes; "" where there is none, "nowhere" where it is not there, as the stage itself then says."""
    from prorec_core.quantization.code_files import digest

    try:
        return digest(experiment.quantize)
    except UserError:
        return "nowhere"
