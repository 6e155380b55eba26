"""One subject in a process of its own: `python -m benchmarks.worker SUBJECT CONFIG DATA FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.experiments import experiment_for
from benchmarks.inputs import prepare
from benchmarks.laps import Laps
from prorec_core.data.dataset import Dataset
from prorec_core.quantization.quantized import CodeTable


def run(subject: str, config: Path, data: Path, folder: Path) -> None:
    """Load what a subject needs, then run lap after lap until the starter has enough.

    A subject is a name, for beam search followed by a colon and the number of beams.
    """
    laps = Laps()
    experiment = experiment_for(config, data)
    name, _, beams = subject.partition(":")
    if name == "prepare":
        laps.start()
        prepare(experiment, folder)
        laps.lap()
    elif name.startswith("peer"):
        from benchmarks import peer_t5

        codes = CodeTable.load(folder / "quantize" / "codes.parquet").codes
        sequences = Dataset.load(folder / "preprocess").sequences
        if name == "peer_epoch":
            peer_t5.epoch(codes, sequences, laps)
        else:
            peer_t5.beam_search(codes, sequences, laps, int(beams))
    else:
        from benchmarks import ours

        if name == "beam_search":
            ours.beam_search(experiment, folder, laps, int(beams))
        else:
            getattr(ours, name)(experiment, folder, laps)


if __name__ == "__main__":
    run(sys.argv[1], *(Path(argument) for argument in sys.argv[2:]))
