"""What the stages need of memory, from the tensors that are known to be large; a factor of two is as near as it comes.

Knows configuration, the sizes of artifacts and how trainings use their tables; measures nothing, and no result depends
on it. A formula belongs to the code that it counts, and changes with it. Axes: N items, D dimensions of a model, E of
what is quantized, S of texts, I interactions, U users. All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from prorec.tasks.execution.needs import Need, Part, cuda_index, total
from prorec_core.artifacts import read_json
from prorec_core.config import Experiment, Training

if TYPE_CHECKING:
    import torch

_FLOAT, _DOUBLE = 4, 8
_PAIR = 100
"""Bytes of a pair of items of one user, while who has what is counted."""
_LIBRARIES = 2**26
"""What libraries take at the first call of much that a stage calls, and what they keep of what was freed."""


@dataclass(frozen=True)
class Sizes:
    """Of the data that a stage reads.

    Attributes:
        users: U, or how many targets there are in the test, where these are more.
        items: N.
        interactions: I.
        texts: bytes of ids, titles and texts.
        text_dim: S, 0 where the stage does not read text embeddings.
    """

    users: int
    items: int
    interactions: int
    texts: int = 0
    text_dim: int = 0

    @classmethod
    def of(cls, inputs: Mapping[str, Path]) -> Sizes:
        """Those that the metadata of `preprocess` and `embed_text` tell."""
        import pyarrow.parquet as pq

        folder = inputs["preprocess"]
        sequences, items = (pq.read_metadata(folder / name) for name in ("sequences.parquet", "items.parquet"))
        groups = [sequences.row_group(index) for index in range(sequences.num_row_groups)]
        place = groups[0].num_columns - 2 if groups else 0
        text_dim = 0
        if "embed_text" in inputs:
            text_dim = pq.read_schema(inputs["embed_text"] / "embeddings.parquet").field("embedding").type.list_size
        split = read_json(folder / "profile.json").get("split", {})
        return cls(
            max(sequences.num_rows, split.get("test", {}).get("targets", 0)),
            items.num_rows,
            sum(group.column(place).num_values for group in groups),
            sum(items.row_group(index).total_byte_size for index in range(items.num_row_groups)),
            text_dim,
        )


def of_collaborative(experiment: Experiment, inputs: Mapping[str, Path]) -> Need:
    """`train_collaborative`: an item table that is trained, and the scores of validation."""
    config, sizes = experiment.collaborative, Sizes.of(inputs)
    table = sizes.items * config.dim * _FLOAT
    step = _softmax(experiment, sizes.items, config.dim, config.tokens_per_batch)
    trained = _trained(table, by_rows=_by_rows(experiment, sizes.items))
    scores = _whole_scores(experiment, sizes, table)
    return [*_data(sizes), *trained, *_larger(step, scores), _states(experiment, config, config.dim)]


def of_align(experiment: Experiment, inputs: Mapping[str, Path]) -> Need:
    """`align`: a table that is trained, and all that a step makes of every item's text and vector."""
    config, shape, sizes = experiment.align, experiment.collaborative, Sizes.of(inputs)
    table, texts = sizes.items * shape.dim * _FLOAT, sizes.items * sizes.text_dim * _FLOAT
    wide = table * (2 if config.fusion == "concat" else 1)
    # The adapter's three outputs, the layer norm, the product and the sum, and the gradients of all but one.
    adapted = Part("what a step makes of all texts", 11 * table + texts // 2, "a smaller collaborative.dim", True)
    # Fused, smoothed over the graph and normalised, and the gradient of each.
    fused = Part("the fused vectors of a step", (6 if config.graph else 4) * wide, "a smaller collaborative.dim", True)
    softmax = _softmax(experiment, sizes.items, wide // sizes.items // _FLOAT, config.tokens_per_batch)
    # In a large catalogue a step makes what it meets; all of it is made for validation alone, piece by piece.
    by_rows = _by_rows(experiment, sizes.items)
    step = softmax if by_rows else [adapted, fused, *softmax]
    made = Part(adapted.what, (3 if by_rows else 6) * table, adapted.cure, True)
    found = [
        *_data(sizes),
        Part("text embeddings as they were read", 2 * texts, "a text.model of fewer dimensions", certain=True),
        Part("text embeddings where models are", texts, "a text.model of fewer dimensions", True, True),
        *_trained(table, by_rows=by_rows),
        *_larger(step, [made, *_whole_scores(experiment, sizes, wide)], _domination()),
        _states(experiment, config, shape.dim),
    ]
    if config.graph:
        cure = "align.graph=0" if config.graph_window == 1 else "a smaller align.graph_window"
        found.append(Part("the graph of items", 60 * _pairs_within(inputs, sizes, config.graph_window), cure))
    return found


def _pairs_within(inputs: Mapping[str, Path], sizes: Sizes, window: int) -> int:
    """Pairs of items that stand so many steps apart at most, from what is told of the lengths of histories."""
    profile = read_json(inputs["preprocess"] / "profile.json")
    if window == 1 or "history_length" not in profile:
        return sizes.interactions * window

    def pairs(length: float) -> float:
        most = min(window, max(length - 1, 0))
        return most * length - most * (most + 1) / 2

    told, marks = (
        profile["history_length"],
        {"min": 0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99},
    )
    shares, lengths = [*marks.values(), 1], [*(told[name] for name in marks), told["max"]]
    mean = sum(
        (later - share) * (pairs(low) + pairs(high)) / 2
        for share, later, low, high in zip(shares, shares[1:], lengths, lengths[1:], strict=False)
    )
    return int(mean * profile["kept"]["users"])


def of_quantize(experiment: Experiment, inputs: Mapping[str, Path]) -> Need:
    """`quantize`: copies of the embedding, what each level leaves over, and sums in double precision."""
    from prorec_core.quantization.blocks import LARGE_TABLE

    sizes, codes = Sizes.of(inputs), experiment.quantize.codes
    row = _quantized_dim(experiment, sizes) * _FLOAT
    # Above, codebooks are fitted to a sample, and what needs a copy takes blocks of about as many rows.
    copied = sizes.items if sizes.items <= LARGE_TABLE else min(sizes.items, max(2**16, 256 * codes))
    return [
        *_data(sizes),
        Part("the embedding, and what levels leave over of it", 2 * sizes.items * row, _NARROWER, certain=True),
        Part("copies of it, and sums in double precision", 10 * copied * row, _NARROWER),
    ]


def of_generator(experiment: Experiment, inputs: Mapping[str, Path]) -> Need:
    """`train_generator`: frozen tables of items and nodes, a step's products with them, and the search for the choice.

    The codes are not looked at: a level is taken to have as many nodes as it can.
    """
    from prorec_core.generation.stage import CHOSEN_BY, distillation_weight

    config, sizes = experiment.generator, Sizes.of(inputs)
    items, dim = sizes.items, _quantized_dim(experiment, sizes)
    table, own = items * dim * _FLOAT, items * experiment.collaborative.dim * _FLOAT
    nodes = _nodes(experiment, items)
    positions = min(config.tokens_per_batch, sizes.interactions)
    products = max(_products(positions, above, count, dim) for above, count in pairwise([1, *nodes]))
    soft = config.distill.soft_targets > 0
    integrated, read = experiment.quantize.embedding == "integrated", experiment.align.max_history
    distilled = distillation_weight(config, integrated=integrated, max_history=int(read)) > 0
    met = experiment.collaborative.negatives + positions if _by_rows(experiment, items) else items
    step = [
        Part(
            "logits of distillation",
            int(1.5 * 512 * met * _FLOAT) if distilled else 0,
            "generator.distill.beta=0",
            True,
        ),
        Part("products with nodes", products, "a smaller generator.tokens_per_batch or quantize.codes", True),
        Part(
            "the soft teacher's masses of items",
            3 * positions * met * _FLOAT if soft else 0,
            "generator.distill.soft_targets=0 or a smaller generator.tokens_per_batch",
            True,
        ),
    ]
    return [
        *_data(sizes),
        Part("embeddings of the stages before", table + 3 * own, _NARROWER, certain=True),
        Part("text embeddings", 3 * items * sizes.text_dim * _FLOAT, "generator.ranker=false"),
        Part("frozen vectors of items", 3 * table, _NARROWER, True),
        Part("vectors of nodes", sum(nodes) * dim * _FLOAT if config.node_scores else 0, _NARROWER, True),
        Part("the trie of codes", 8 * items * (2 * len(nodes) + 4), "fewer quantize.levels", True),
        Part("counts of what follows what", 60 * sizes.interactions if config.ranker else 0, "generator.ranker=false"),
        Part("who has what", _similar(sizes) if config.ranker else 0, "generator.ranker=false"),
        *_larger(step, _search(experiment, sizes, min(sizes.users, CHOSEN_BY), ranked=True)),
        _states(experiment, config, config.dim),
    ]


def of_evaluate(experiment: Experiment, inputs: Mapping[str, Path]) -> Need:
    """`evaluate`: frozen tables, a search, and every scorer's lists of both splits."""
    from prorec_core.evaluation.lists import USERS_AT_ONCE

    sizes = Sizes.of(inputs)
    table = sizes.items * _quantized_dim(experiment, sizes) * _FLOAT
    lists = 2 * 7 * sizes.users * experiment.evaluate.list_length * 2 * _FLOAT
    return [
        *_data(sizes),
        Part("frozen vectors of items and nodes", (4 + len(_nodes(experiment, sizes.items))) * table, _NARROWER, True),
        Part("the lists of all scorers", lists, "a smaller evaluate.list_length"),
        *_search(experiment, sizes, min(sizes.users, USERS_AT_ONCE)),
    ]


_NARROWER = "a smaller collaborative.dim"
_FEWER_DATA = "fewer data: a larger data.min_user_interactions or data.min_item_interactions"


def _data(sizes: Sizes) -> list[Part]:
    """Sequences and times as they are read and held, and the batches of an epoch, all made at once."""
    held = 24 * sizes.interactions + 2 * sizes.texts
    return [
        Part("libraries at work", _LIBRARIES, _FEWER_DATA),
        Part("interactions and texts", held, _FEWER_DATA, certain=True),
        Part("splits and batches of all histories", 60 * sizes.interactions, _FEWER_DATA),
    ]


def _by_rows(experiment: Experiment, items: int) -> bool:
    """Whether a step touches the rows that it meets alone."""
    return items > experiment.collaborative.full_softmax_items


def _trained(table: int, *, by_rows: bool) -> list[Part]:
    """A table with gradient, two moments and the best so far; and a checkpoint, which is put together in memory."""
    return [
        Part("item vectors, gradient, moments", (3 if by_rows else 4) * table, _NARROWER, True, True),
        Part("the best item vectors so far", table, _NARROWER, True),
        Part("a checkpoint", 8 * table, _NARROWER),
    ]


def _softmax(experiment: Experiment, items: int, dim: int, tokens: int) -> list[Part]:
    """A step of the softmax over items: whole, in chunks of 512 positions, or of a sample."""
    config, table = experiment.collaborative, items * dim * _FLOAT
    if _by_rows(experiment, items):
        logits = 4 * tokens * (config.negatives + tokens) * _FLOAT
        return [Part("logits of the softmax over items", logits, "fewer collaborative.negatives", True)]
    cure = "collaborative.full_softmax_items below the number of items"
    return [
        Part("gradients of all item vectors", 3 * table, _NARROWER, True),
        Part("logits of the softmax over items", int(1.3 * 512 * items * _FLOAT), cure, True),
    ]


def _whole_scores(experiment: Experiment, sizes: Sizes, table: int) -> list[Part]:
    """Validation by the scores of all items for a batch of users: two tables of scores, and comparisons of them."""
    from prorec_core.sequential.base import INFERENCE_TOKENS, users_at_a_time
    from prorec_core.training.batching import at_a_time

    mean, place = max(1, sizes.interactions // max(sizes.users, 1)), _place(experiment)
    users = min(sizes.users, users_at_a_time(sizes.items, place), max(1, at_a_time(INFERENCE_TOKENS, place) // mean))
    size = users * sizes.items * (2 * _FLOAT + 5)
    return [Part("validation's scores of all items", table + size, "fewer items: data.min_item_interactions", True)]


def _domination() -> list[Part]:
    """Similarities of some items with all, and the nearest of them."""
    from prorec_core.metrics.domination import SIMILARITY_CELLS

    return [Part("neighbours of items", 2 * SIMILARITY_CELLS * _FLOAT, "nothing: it is the same for all data")]


def _states(experiment: Experiment, config: Training, dim: int) -> Part:
    """What the layers keep of a batch for the way back, a few layers of some ten numbers a dimension; less, of a larger
    batch, in validation.
    """
    from prorec_core.sequential.base import INFERENCE_TOKENS
    from prorec_core.training.batching import at_a_time

    numbers = max(40 * config.tokens_per_batch, 20 * at_a_time(INFERENCE_TOKENS, _place(experiment))) * dim
    return Part("layers' states of a batch", numbers * _FLOAT, "a smaller tokens_per_batch or dim", True)


def _search(experiment: Experiment, sizes: Sizes, asked: int, *, ranked: bool = False) -> list[Part]:
    """Beam search: candidates of those asked about with both scores, tables of beams times children, dense scores.

    `ranked`: a ranker is fitted to the candidates' features besides.
    """
    from prorec_core.generation.candidates import DENSE_CANDIDATES, DENSE_CELLS, OWN_CANDIDATES, SEARCH_CELLS
    from prorec_core.generation.features import named_features
    from prorec_core.generation.similar import BESIDE_CANDIDATES
    from prorec_core.training.batching import at_a_time

    cells, dense_cells = (at_a_time(each, _place(experiment)) for each in (SEARCH_CELLS, DENSE_CELLS))
    beams = experiment.evaluate.beams
    children = experiment.quantize.codes
    users = min(sizes.users, max(1, min(cells // (beams * children), dense_cells // sizes.items)))
    own = 0 if experiment.evaluate.mask_history else OWN_CANDIDATES
    beside = BESIDE_CANDIDATES if experiment.generator.ranker else 0
    features = _DOUBLE * len(named_features(own=own > 0)) if ranked else 0
    candidates = asked * (beams + DENSE_CANDIDATES + own + beside) * (3 * _FLOAT + features)
    return [
        Part("candidates of users", candidates, "fewer evaluate.beams"),
        Part("tables of the search", 8 * users * beams * children * _FLOAT, "fewer evaluate.beams", True),
        Part("dense scores of all items", 4 * users * sizes.items * _FLOAT, "generator.dense=head", True),
    ]


def _similar(sizes: Sizes) -> int:
    """Bytes of the most similar others of each item, numbers and strengths, and of the pairs they are found among."""
    from prorec_core.generation.relations import MOST_SIMILAR
    from prorec_core.generation.similar import PAIRS

    found = min(sizes.items, MOST_SIMILAR) * sizes.items * 2 * _FLOAT
    return found + _PAIR * min(PAIRS, sizes.interactions * MOST_SIMILAR)


def _place(experiment: Experiment) -> torch.device:
    """Where its models run, as far as it matters how much they do at a time."""
    import torch

    return torch.device("cpu" if cuda_index(experiment.device) is None else "cuda")


def _quantized_dim(experiment: Experiment, sizes: Sizes) -> int:
    """E, of what codes are made of."""
    dim = experiment.collaborative.dim
    wide = 2 * dim if experiment.align.fusion == "concat" else dim
    of = {"integrated": wide, "semantic": sizes.text_dim, "collaborative": dim}
    return of.get(experiment.quantize.embedding, sizes.text_dim + dim)


def _nodes(experiment: Experiment, items: int) -> list[int]:
    """Most nodes of each level of the trie, without the root."""
    levels, codes = experiment.quantize.levels, experiment.quantize.codes
    found = [min(items, codes ** (level + 1)) for level in range(levels)]
    return [*found, items] if experiment.quantize.collisions == "suffix" else [*found[:-1], items]


def _products(positions: int, above: int, nodes: int, dim: int) -> int:
    """Products of targets with the nodes of a level, as `generation.base` makes them: with all, or a few's vectors."""
    children = -(-nodes // above)
    return (5 * children * dim if 2 * children < nodes else 3 * nodes) * positions * _FLOAT


def _larger(*phases: list[Part]) -> list[Part]:
    """The largest of what is not there at the same time."""
    return max(phases, key=total)
