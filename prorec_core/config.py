"""What an experiment is: every choice with its range, default and meaning.

Knows the names and limits of choices; knows nothing of how they are carried out. `Experiment()` alone is the
demo. A YAML file in `configs/` holds only what differs from these defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from prorec_core.config_compute import ComputeConfig
from prorec_core.config_data import DataConfig, TextConfig
from prorec_core.registry import GENERATORS, QUANTIZERS, SEQUENTIAL_MODELS
from prorec_core.sections import (
    MANY,
    MOST_SEED,
    RUN_ONLY,
    Added,
    Change,
    Place,
    Probability,
    Section,
    Width,
)


class Training(Section):
    """What every training stage has in common."""

    epochs: int = Field(15, ge=1, le=1000, description="Epochs at most; the learning rate decays over them.")
    tokens_per_batch: int = Field(512, ge=16, le=2**24, description="Items of history a batch, padding included.")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, le=1, description="Weight decay of matrices (none on vectors).")
    warmup_steps: int = Field(60, ge=0, le=MANY, description="Steps of linear warm-up before the cosine decay.")
    dropout: Probability = Field(0.2, description="Dropout of embeddings and of feed-forward layers.")
    patience: int = Field(4, ge=1, le=1000, description="Epochs without a better validation NDCG@10 before stopping.")
    max_history: int = Field(50, ge=1, le=4096, description="Items of history that a model sees, the latest.")
    validation_users: int = Field(25_000, ge=1, le=MANY, description="Users at most in an epoch's validation.")
    precision: Literal["auto", "float32"] = Field(
        "auto", description="auto: bfloat16 matrix products where the hardware has them."
    )


TrainingT = TypeVar("TrainingT", bound=Training)


class CollaborativeConfig(Training):
    """The sequential recommender that knows items by their ids alone."""

    model: Annotated[str, SEQUENTIAL_MODELS] = Field(
        "sasrec", description="sasrec: causal transformer; din: the paper's."
    )
    dim: int = Field(64, ge=4, le=4096, description="Dimensions d of the item embeddings and of the model.")
    layers: int = Field(2, ge=1, le=64, description="Transformer layers (sasrec).")
    heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide dim (sasrec).")
    attention_units: Width = Field(32, description="Hidden units of the activation unit (din).")
    score: Literal["cosine", "dot"] = Field("cosine", description="How a state is compared with an item.")
    temperature: float = Field(
        0.06, ge=1e-3, le=10, description="Temperature of the softmax over items (score: cosine)."
    )
    loss: Literal["cross_entropy", "binary_cross_entropy"] = Field(
        "cross_entropy",
        description="cross_entropy: softmax over items; binary_cross_entropy: one sampled negative a position, as "
        "SASRec was published (sasrec).",
    )
    full_softmax_items: int = Field(
        50_000,
        ge=0,
        le=MANY,
        description="Catalogues up to this size get the whole softmax. In larger ones a step of any training meets the "
        "items of its batch and `negatives` sampled ones alone.",
    )
    negatives: int = Field(2048, ge=1, le=2**24, description="Items sampled a batch where the softmax is not whole.")
    epochs: int = Field(12, ge=1, le=1000, description="Epochs at most; the learning rate decays over them.")
    dropout: Probability = Field(0.3, description="Dropout of embeddings and of feed-forward layers.")

    @model_validator(mode="after")
    def _heads_divide(self) -> CollaborativeConfig:
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        if self.model == "din" and self.loss == "binary_cross_entropy":
            raise ValueError("din has no binary_cross_entropy; set loss to cross_entropy or model to sasrec")
        return self


class AlignConfig(Training):
    """Stage I: the semantic embedding adapted, aligned and fused with the collaborative one."""

    epochs: int = Field(30, ge=1, le=1000, description="Epochs at most; the learning rate decays over them.")
    fusion: Literal["sum", "concat"] = Field("sum", description="E_I: E_C + E_T, or both side by side.")
    alpha: float = Field(0.01, ge=0, le=100, description="Weight of the alignment loss; 0 leaves it out.")
    temperature: float = Field(0.1, ge=1e-3, le=10, description="Temperature of the alignment InfoNCE.")
    align_items: int = Field(512, ge=2, le=2**24, description="Items a batch at most in the alignment InfoNCE.")
    graph: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Weight in E_I of the items that stand beside an item in training histories; 0: none.",
    )
    graph_neighbours: int = Field(
        8, ge=1, le=MANY, description="Strongest neighbours that an item has over full_softmax_items; else it has all."
    )
    start: Literal["collaborative", "scratch"] = Field(
        "collaborative", description="Where the collaborative part starts: the stage before, or anew."
    )


class RQVAEConfig(Section):
    """Training of the RQ-VAE quantizer."""

    epochs: int = Field(60, ge=1, le=100_000, description="Passes over the items.")
    batch_size: int = Field(1024, ge=2, le=2**24, description="Items a batch.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Learning rate of AdamW.")
    hidden: list[Width] = Field(default=[256], max_length=16, description="Hidden widths of the encoder, mirrored.")
    latent: Width = Field(64, description="Dimensions of the quantized space.")
    commitment: float = Field(0.25, ge=0, le=1000, description="Weight of the commitment loss.")


class QuantizeConfig(Section):
    """From embeddings to codes."""

    embedding: Literal["integrated", "semantic", "collaborative", "concatenation"] = Field(
        "integrated",
        description="What is quantized: integrated E_I; semantic E_S; collaborative E_C of the stage before "
        "aligning; concatenation: E_S and that E_C side by side, naively.",
    )
    method: Annotated[str, QUANTIZERS] = Field("residual_kmeans", description="The quantizer.")
    table: Place | None = Field(
        None,
        description="File with codes of one's own, in place of a quantizer: a table with item_id and codes (a list) or "
        "code_0, code_1 and so on; or LETTER's NAME.index.json.",
    )
    levels: int = Field(3, ge=1, le=16, description="Code levels L, without the suffix.")
    codes: int = Field(64, ge=2, le=65_535, description="Codes K a level.")
    iterations: int = Field(50, ge=1, le=100_000, description="Iterations of k-means at most.")
    collisions: Literal["suffix", "reassign"] = Field(
        "suffix",
        description="Items with equal codes: an extra level, or the nearest free code at the last level.",
    )
    rq_vae: RQVAEConfig = Field(default_factory=RQVAEConfig, description="Training of the RQ-VAE.")


class DistillConfig(Section):
    """In-modality knowledge distillation from the frozen teacher embeddings."""

    beta: float = Field(0.3, ge=0, le=100, description="Weight of the distillation loss; 0 leaves it out.")
    at: Literal["context", "summary"] = Field(
        "context", description="What is pulled to the teacher: the context vector, or a token after the last code."
    )
    teacher: Literal["integrated", "both"] = Field(
        "integrated", description="Teacher: the integrated embedding; both: semantic and collaborative apart."
    )
    temperature: float = Field(0.06, ge=1e-3, le=10, description="Temperature of the distillation InfoNCE.")
    share: float = Field(
        0.25, gt=0, le=1, description="Share of a batch's targets at which is distilled, drawn anew for each batch."
    )
    soft_targets: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Weight of the Stage-I model's distribution over trie nodes against the target's own codes.",
    )


class GeneratorConfig(Training):
    """Stage II: the model that generates the codes of the next item."""

    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    dropout: Probability = Field(0.3, description="Dropout of embeddings and of feed-forward layers.")
    architecture: Annotated[str, GENERATORS] = Field(
        "timeline", description="timeline: one token an item; encoder_decoder: the paper's, one token a code."
    )
    dim: int = Field(64, ge=4, le=4096, description="Dimensions of the model.")
    layers: int = Field(2, ge=1, le=64, description="Transformer layers over the history.")
    decoder_layers: int = Field(2, ge=1, le=64, description="Layers that turn a context into codes.")
    heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide dim.")
    history: Literal["codes", "codes_and_embedding"] = Field(
        "codes_and_embedding", description="An item of history: its codes, or its frozen embedding beside them."
    )
    warm_start: bool = Field(
        False, description="Start the history transformer from Stage I (timeline over SASRec of equal size)."
    )
    warm_start_rate: float = Field(
        0.25, gt=0, le=1, description="Learning rate of what was warm-started, as a share of the rest's."
    )
    dense: Literal["stage_one", "head"] = Field(
        "stage_one",
        description="The dense score that generation is fused with: of Stage I as it was trained (codes of the "
        "integrated embedding, equal max_history), or of the generator's own distillation head.",
    )
    heads_from_codebooks: bool = Field(True, description="Start code embeddings and heads from the codebooks.")
    trie_mask: bool = Field(True, description="Only codes that exist compete in the training softmax.")
    node_scores: bool = Field(
        True, description="Add to each code's logit the score of the mean embedding of the items below it."
    )
    node_temperature: float = Field(0.06, ge=1e-3, le=10, description="Temperature of the node scores.")
    label_smoothing: Probability = Field(0.0, description="Mass of the target spread over the other codes.")
    ranker: bool = Field(
        True,
        description="Fit a linear ranker of what generation and the dense score find, by both of them, item-to-item "
        "counts, texts and popularity, on validation users; it recommends where it is better on those left out.",
    )
    ranker_weights: (
        Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=5, max_length=7)] | None
    ) = Field(
        None,
        description="Weights of the ranker's features (generative, dense, successor, text, popularity; own_count and "
        "own_recency too where the history is not masked), as an earlier model of the same data has them; null: they "
        "are fitted, which train_on_validation leaves no users for.",
    )
    distill: DistillConfig = Field(default_factory=DistillConfig, description="Knowledge distillation.")
    targets_per_user: int = Field(
        4, ge=1, le=4096, description="Training targets drawn from each history an epoch (encoder_decoder)."
    )
    validation_users: int = Field(
        2000, ge=1, le=MANY, description="Users, or targets of data.split, at most in the validation after each epoch."
    )
    validation_beams: int = Field(20, ge=10, le=1000, description="Beams in the validation after each epoch.")

    @model_validator(mode="after")
    def _parts_have_what_they_need(self) -> GeneratorConfig:
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        if self.ranker_weights is not None and len(self.ranker_weights) == 6:
            raise ValueError("ranker_weights are 5, or 7 with own_count and own_recency")
        if self.ranker_weights is not None and not self.ranker:
            raise ValueError("ranker_weights without ranker would weigh nothing; leave one of both out")
        if self.distill.soft_targets > 0 and not (self.trie_mask or self.node_scores):
            raise ValueError("distill.soft_targets needs trie_mask or node_scores: its masses are those of trie nodes")
        return self


class EvaluateConfig(Section):
    """How recommendations are measured."""

    beams: int = Field(50, ge=10, le=5000, description="Beams of the generator.")
    list_length: int = Field(
        50, ge=10, le=1000, description="Items in every list; a target further down counts as missed."
    )
    mask_history: bool = Field(True, description="Never recommend what the user already has.")
    fusion_weights: list[Annotated[float, Field(ge=0, le=1e6)]] = Field(
        default=[0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        min_length=1,
        max_length=1000,
        description="Weights λ of the dense score among which validation NDCG@10 chooses.",
    )
    new_item_bonus: float = Field(
        0.0,
        ge=0,
        le=20,
        description="Added to the score of each new item (data.new_items), in nats: with 0.7 it counts twice.",
    )
    bootstrap_samples: int = Field(1000, ge=100, le=100_000, description="Resamples of paired comparisons.")
    examples: int = Field(5, ge=0, le=100, description="Users shown in words in the report.")


class ContinuingConfig(Section):
    """How a training goes on from an earlier one (`start_from`)."""

    epochs_share: float = Field(
        0.3, gt=0, le=1, description="Epochs of each training, as a share of those of one that begins anew."
    )
    rate_share: float = Field(
        0.5, gt=0, le=1, description="Peak learning rate, as a share of that of a training that begins anew."
    )
    codes: Literal["keep", "anew"] = Field(
        "keep", description="keep: known items keep their codes; anew: all items are quantized anew."
    )

    def shortened(self, training: TrainingT) -> TrainingT:
        """A training's section as one that goes on has it."""
        epochs = max(1, round(training.epochs * self.epochs_share))
        rate = training.learning_rate * self.rate_share
        return training.model_copy(update={"epochs": epochs, "learning_rate": rate})


class Experiment(Section):
    """One experiment: a name, a seed and a section a stage. The flow's only parameter."""

    name: str = Field("demo", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name of the experiment.")
    seed: int = Field(0, ge=0, le=MOST_SEED, description="Seed of everything that is trained.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?|mps)$",
        description="Where models are trained: auto, cpu, cuda, cuda:N or mps.",
        json_schema_extra=RUN_ONLY,
    )
    compute: ComputeConfig = Field(
        default_factory=ComputeConfig, description="Who computes.", json_schema_extra=RUN_ONLY
    )
    train_on_validation: bool = Field(
        False,
        description="Train on the validation items too: all epochs, with the one evaluate.fusion_weights and "
        "the generator.ranker_weights given. What comes out is not comparable with models that never saw those items.",
    )
    start_from: Place | None = Field(
        None,
        description="A model whose training is gone on from: models:/NAME/VERSION, models:/NAME@ALIAS, or a run; "
        "resolved when the run is made. Its content, not its name, decides what is cached.",
        json_schema_extra=RUN_ONLY,
    )
    continuing: ContinuingConfig = Field(
        default_factory=ContinuingConfig, description="How training goes on from that model."
    )
    data: DataConfig = Field(default_factory=DataConfig, description="Interactions and items.")
    text: TextConfig = Field(default_factory=TextConfig, description="The text encoder.")
    collaborative: CollaborativeConfig = Field(
        default_factory=CollaborativeConfig, description="The collaborative model."
    )
    align: AlignConfig = Field(default_factory=AlignConfig, description="Stage I: alignment and fusion.")
    quantize: QuantizeConfig = Field(default_factory=QuantizeConfig, description="Codes.")
    generator: GeneratorConfig = Field(default_factory=GeneratorConfig, description="Stage II: the generator.")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="Evaluation.")

    @model_validator(mode="after")
    def _choices_go_together(self) -> Experiment:
        if not self.train_on_validation and self.generator.ranker_weights is not None:
            raise ValueError("generator.ranker_weights are for train_on_validation; without it they are fitted")
        if self.train_on_validation and len(self.evaluate.fusion_weights) > 1:
            raise ValueError(
                "train_on_validation leaves nothing to choose a fusion weight on; give the one that was chosen "
                "without it, as in evaluate.fusion_weights=[2]"
            )
        if self.start_from is not None and self.data.new_items > 0:
            raise ValueError(
                "start_from with data.new_items would measure items as new that the model to start from may know"
            )
        taught = self.generator.distill.soft_targets > 0 and self.quantize.embedding == "integrated"
        if taught and self.collaborative.model == "sasrec" and self.generator.max_history > self.align.max_history:
            raise ValueError("soft_targets are Stage I's: set generator.max_history to at most align.max_history")
        return self


_TO_THE_SECOND: tuple[Change, ...] = (
    Added("start_from", None),
    Added("continuing", {}),
    Added("continuing.epochs_share", 0.3),
    Added("continuing.rate_share", 0.5),
    Added("continuing.codes", "keep"),
    Added("data.attribute_columns", []),
    Added("data.attribute_kinds", []),
    Added("text.backend", "torch"),
    Added("text.vectors", []),
    Added("data.demo.repeats", 0.0),
    Added("data.split", "leave_one_out"),
    Added("data.validation_from", None),
    Added("data.test_from", None),
    Added("data.validation_share", 0.1),
    Added("data.test_share", 0.1),
    Added("data.targets", "all"),
    Added("data.negative_times", "error"),
    Added("data.repeated_items", "error"),
    Added("data.items_without_id", "error"),
    Added("data.expected", {}),
    Added("data.expected.users", 0),
    Added("data.expected.items", 0),
    Added("data.expected.interactions", 0),
    Added("data.expected.source", ""),
    Added("data.sql", {}),
    Added("data.sql.connection", "PROREC_SQL"),
    Added("data.sql.interactions", "SELECT * FROM interactions ORDER BY timestamp"),
    Added("data.sql.items", "SELECT * FROM items ORDER BY item_id"),
    Added("data.sql.snapshot", None),
    Added("quantize.table", None),
    Added("compute", {}),
    Added("compute.engine", "local"),
    Added("compute.address", None),
    Added("compute.workers", 2),
    Added("compute.gpus_per_worker", 0),
    Added("compute.cpus_per_worker", 1),
)

CHANGES: tuple[tuple[Change, ...], ...] = (_TO_THE_SECOND,)
"""From each version of what is stored to the next, from version 1 on: which of these fields were added or renamed."""
