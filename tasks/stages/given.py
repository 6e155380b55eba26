"""Digests of files that an experiment names beside its data. Knows fields. A stage that asks here does
not import what reads the file, and so its cache key does not follow from that code.

"" where none is named, "nowhere" where it is not there, as the stage itself then says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.sections import Section

SectionT = TypeVar("SectionT", bound=Section)


def table_digest(experiment: Experiment) -> str:
    """Of a table of codes."""
    from prorec_core.quantization.code_files import digest

    return _of(digest, experiment.quantize)


def ranker_digest(experiment: Experiment) -> str:
    """Of a ranker."""
    from prorec_core.generation.ranker_file import digest

    return _of(digest, experiment.generator)


def _of(digest: Callable[[SectionT], str], section: SectionT) -> str:
    try:
        return digest(section)
    except UserError:
        return "nowhere"
