"""What quantizing and search cost as the catalogue grows: synthetic items straight into `prorec_core`.

`python -m benchmarks.catalogue quantize 200000 [--method NAME] [--collisions NAME]`, `search 200000 [--dense]`, or
`kmeans 50000 [--embeddings FILE]`: k-means on a sample beside scikit-learn's on all. Prints one line of JSON.
Embeddings stand in 2,000 clusters of very unequal size; the codes that are searched are of very unequal use, and one
item in a hundred stands in a family of about a hundred that only the suffix tells apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.laps import peak_bytes

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint16]
_DIM = 128
_CODES = 256
_LEVELS = 3


def clustered_items(n_items: int) -> Floats:
    """Embeddings, float32, shape (items, 128)."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((2000, _DIM), dtype=np.float32)
    cluster = random.choice(len(centres), n_items, p=random.dirichlet(np.full(len(centres), 0.5)))
    found = random.standard_normal((n_items, _DIM), dtype=np.float32)
    found *= np.float32(0.7)
    for start in range(0, n_items, 65_536):
        found[start : start + 65_536] += centres[cluster[start : start + 65_536]]
    return found


def code_table(n_items: int) -> Codes:
    """Codes of three levels and a suffix, uint16, shape (items, 4)."""
    from prorec_core.quantization.collisions import add_suffix

    random = np.random.default_rng(0)
    use = [random.dirichlet(np.full(_CODES, 0.5)) for _ in range(_LEVELS)]
    codes = np.stack([random.choice(_CODES, n_items, p=share) for share in use], axis=1)
    shared = n_items // 100
    families = random.integers(0, max(1, shared // 100), shared)
    codes[:shared] = codes[families]
    return add_suffix(random.permutation(codes).astype(np.uint16))


def quantizing(n_items: int, method: str, collisions: str) -> dict[str, Any]:
    """Seconds of the whole of `quantize`, and what became of the items."""
    from prorec_core.config import QuantizeConfig
    from prorec_core.quantization.stage import quantize

    embeddings, ids = clustered_items(n_items), [str(item) for item in range(n_items)]
    config = QuantizeConfig.model_validate({"method": method, "codes": _CODES, "collisions": collisions})
    started, worked = time.perf_counter(), time.process_time()
    quality = quantize(config, embeddings, ids, 0).quality
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    handled = quality["collisions"]
    return {
        "method": method,
        "collisions": collisions,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "relative_error": round(quality["relative_error"], 4),
        "largest_family": handled["before"]["largest_group"],
        "moved": handled["moved"],
    }


def clustering(embeddings: Floats, seeds: int = 3) -> dict[str, Any]:
    """Seconds and mean squared distance to the nearest centroid of both ways, means over some seeds."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    from prorec_core.quantization.kmeans import sampled_kmeans
    from prorec_core.quantization.quantizer import nearest

    def whole(seed: int) -> Floats:
        with threadpool_limits(limits=1):
            found: Floats = KMeans(_CODES, n_init=1, max_iter=50, random_state=seed).fit(embeddings).cluster_centers_
        return found

    figures: dict[str, Any] = {}
    for name, find in (("all", whole), ("sample", lambda seed: sampled_kmeans(embeddings, _CODES, 50, seed))):
        costs, started = [], time.perf_counter()
        for seed in range(seeds):
            centroids = find(seed)
            costs.append(float(np.square(embeddings - centroids[nearest(embeddings, centroids)]).sum(1).mean()))
        seconds = (time.perf_counter() - started) / seeds
        figures[name] = {"seconds": round(seconds, 2), "cost": round(float(np.mean(costs)), 3)}
    return figures


def searching(n_items: int, users: int, beams: int, dense: bool) -> dict[str, Any]:
    """Seconds of beam search for some users, by a generator that has learnt nothing."""
    import torch

    from prorec_core.config import GeneratorConfig
    from prorec_core.data.sequences import from_lists
    from prorec_core.generation.base import Items
    from prorec_core.generation.candidates import find_candidates
    from prorec_core.generation.trained import build_generator
    from prorec_core.generation.trie import CodeTrie

    torch.manual_seed(0)
    config = GeneratorConfig(dim=_DIM, precision="float32")
    started = time.perf_counter()
    trie = CodeTrie.from_codes(code_table(n_items))
    vectors = torch.from_numpy(clustered_items(n_items))
    generator = build_generator(
        config, Items(trie, vectors, {"integrated": vectors}, [None] * trie.depth), False
    ).eval()
    built, before = time.perf_counter() - started, peak_bytes()
    random = np.random.default_rng(1)
    lengths = np.clip(random.geometric(1 / 8, users) + 3, 4, 50)
    histories = from_lists([random.integers(0, n_items, length).astype(np.int32) for length in lengths], n_items)
    started, worked = time.perf_counter(), time.process_time()
    found = find_candidates(generator, histories, beams, 2 * beams, with_dense=dense)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    return {
        "users": users,
        "beams": beams,
        "dense": dense,
        "seconds_to_build": round(built, 1),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(worked, 2),
        "gib_before_search": round(before / 2**30, 2),
        "mean": round(float(found.generative_UC[:, :beams].mean()), 4),
    }


def _read(path: Path) -> Floats:
    import pyarrow.parquet as pq

    column = pq.read_table(path).column("embedding").combine_chunks()
    found: Floats = np.array(column.flatten(), np.float32).reshape(len(column), -1)
    return found


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue", description=__doc__)
    parser.add_argument("work", choices=["quantize", "search", "kmeans"])
    parser.add_argument("items", type=int)
    parser.add_argument("--method", default="residual_kmeans")
    parser.add_argument("--collisions", default="suffix")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--dense", action="store_true", help="look at the dense score of all items, too")
    parser.add_argument("--embeddings", type=Path, help="embeddings.parquet of a stage, in place of synthetic ones")
    asked = parser.parse_args()
    if asked.work == "quantize":
        found = quantizing(asked.items, asked.method, asked.collisions)
    elif asked.work == "kmeans":
        found = clustering(clustered_items(asked.items) if asked.embeddings is None else _read(asked.embeddings))
    else:
        found = searching(asked.items, asked.users, asked.beams, asked.dense)
    print(json.dumps({"work": asked.work, "items": asked.items, **found, "gib": round(peak_bytes() / 2**30, 2)}))


if __name__ == "__main__":
    main()
