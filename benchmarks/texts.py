"""What a backend of the text encoder costs beside torch in float32: `python -m benchmarks.texts --data DIR`.

Knows an items file's texts. Both embed the same batches in turns, with one thread by default, so that what else runs on
the machine meets both alike; the seconds are the processor's.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

import numpy as np

from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.data.raw import read_tables
from prorec_core.data.sources import open_source
from prorec_core.text.pieces import batches
from prorec_core.text.sentences import SentenceEncoder


def main() -> None:
    """Measure, and print a line a backend."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="folder with interactions and items, columns as by default")
    parser.add_argument("--texts", type=int, default=300, help="how many different texts, drawn evenly")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()

    import torch

    torch.set_num_threads(asked.threads)
    data = DataConfig(source="tables", path=asked.data)
    source = open_source(data)
    _, _, catalogue = read_tables(data, source.interactions(), source.items())
    different = catalogue.items["text"].unique().sort()
    drawn = np.random.default_rng(0).choice(different.len(), min(asked.texts, different.len()), replace=False)
    texts = sorted(different.gather(drawn).to_list(), key=len)
    plain = {"torch, float32": TextConfig(precision="float32")}
    of = {
        **plain,
        "openvino, float32": TextConfig(backend="openvino", precision="float32"),
        "openvino, int8": TextConfig(backend="openvino"),
    }
    seconds, vectors = dict.fromkeys(of, 0.0), dict[str, list[np.ndarray]]()
    with ExitStack() as stack:
        encoders = {}
        for name, config in of.items():
            encoder = SentenceEncoder.open(config, "cpu")
            stack.enter_context(encoder.backend.computing(encoder.model, config, encoder.device))
            encoders[name] = encoder
            encoder.model.encode(texts[:8], show_progress_bar=False)
        # Some texts of each after the other, each in the batches that suit it.
        lengths = np.array([len(text) // 4 + 1 for text in texts])
        for turn in batches(lengths, 4096, len(texts)):
            for name, encoder in encoders.items():
                start = time.process_time()
                for batch in batches(lengths[turn], encoder.backend.tokens_a_batch(encoder.device), 64):
                    some = texts[turn][batch]
                    found = encoder.model.encode(some, batch_size=len(some), show_progress_bar=False)
                    vectors.setdefault(name, []).append(found)
                seconds[name] += time.process_time() - start
    first = next(iter(of))
    exact = np.concatenate(vectors[first])
    for name in of:
        cosines = (np.concatenate(vectors[name]) * exact).sum(axis=1)
        print(
            f"{name:18} {seconds[name]:7.2f} s, {seconds[name] / seconds[first]:.3f} of {first};"
            f" cosine with it {cosines.mean():.5f}, at least {cosines.min():.5f}"
        )


if __name__ == "__main__":
    main()
