"""What an experiment is: every choice with its range, default and meaning.

Knows the names and limits of choices; knows nothing of how they are carried out. `Experiment()` alone is the
demo. A YAML file in `configs/` holds only what differs from these defaults. Numbers `by_data` are the built-in shop's
own; with other data they are `AUTO` where nothing is said, until `prorec_core.fitting` knows how large the data are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationInfo, model_validator

from prorec_core.by_data import AUTO, STORED, ByData, by_data, fields_by_data, left_to_the_data
from prorec_core.config_compute import ComputeConfig
from prorec_core.config_data import DataConfig, TextConfig, is_built_in
from prorec_core.config_evaluate import EvaluateConfig
from prorec_core.registry import GENERATORS, QUANTIZERS, SEQUENTIAL_MODELS
from prorec_core.sections import MANY, MOST_SEED, RUN_ONLY, Place, Probability, Section, Width

Dim = Annotated[int, Field(ge=4, le=4096), ByData]
Epochs = Annotated[int, Field(ge=1, le=1000), ByData]
Rate = Annotated[float, Field(gt=0, le=1), ByData]
Dropout = Annotated[Probability, ByData]
StepMode = Literal["eager", "graph", "compile"]
DEVICES = r"^(auto|cpu|cuda(:[0-9]{1,2})?|mps)$"
"""What names a device."""


class Training(Section):
    """What every training stage has in common."""

    section: ClassVar[str] = "training"
    """Its name in an experiment."""

    epochs: Epochs = by_data(15, "Epochs at most; the learning rate decays over them.")
    tokens_per_batch: Annotated[int, Field(ge=16, le=2**24), ByData] = by_data(
        512, "Items of history a batch, padding included."
    )
    learning_rate: Rate = by_data(4e-3, "Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, le=1, description="Weight decay of matrices (none on vectors).")
    warmup_steps: int = Field(60, ge=0, le=MANY, description="Steps of linear warm-up before the cosine decay.")
    dropout: Dropout = by_data(0.2, "Dropout of embeddings and of feed-forward layers.")
    patience: int = Field(4, ge=1, le=1000, description="Epochs without a better validation NDCG@10 before stopping.")
    max_history: Annotated[int, Field(ge=1, le=4096), ByData] = by_data(
        50, "Items of history that a model sees, the latest."
    )
    validation_users: int = Field(25_000, ge=1, le=MANY, description="Users at most in an epoch's validation.")
    precision: Literal["auto", "float32"] = Field(
        "auto", description="auto: bfloat16 matrix products where the hardware has them."
    )


TrainingT = TypeVar("TrainingT", bound=Training)


class CollaborativeConfig(Training):
    """The sequential recommender that knows items by their ids alone."""

    section: ClassVar[str] = "collaborative"
    model: Annotated[str, SEQUENTIAL_MODELS] = Field(
        "sasrec", description="sasrec: causal transformer; din: the paper's."
    )
    dim: Dim = by_data(64, "Dimensions d of the item embeddings and of the model.")
    layers: int = Field(2, ge=1, le=64, description="Transformer layers (sasrec).")
    heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide dim (sasrec).")
    attention_units: Width = Field(32, description="Hidden units of the activation unit (din).")
    score: Literal["cosine", "dot"] = Field("cosine", description="How a state is compared with an item.")
    temperature: float = Field(
        0.06,
        ge=1e-3,
        le=10,
        description="Temperature of the softmax over items (score: cosine); din, which adds items up, wants about 1.",
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
        description="Catalogues up to this size get the whole softmax (din: up to `negatives` items). In larger ones "
        "a step of any training meets the items of its batch and `negatives` sampled ones alone.",
    )
    negatives: int = Field(2048, ge=1, le=2**24, description="Items sampled a batch where the softmax is not whole.")
    epochs: Epochs = by_data(12, "Epochs at most; the learning rate decays over them.")
    dropout: Dropout = by_data(0.3, "Dropout of embeddings and of feed-forward layers.")

    @model_validator(mode="after")
    def _heads_divide(self) -> CollaborativeConfig:
        if isinstance(self.dim, int) and self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        if self.model == "din" and self.loss == "binary_cross_entropy":
            raise ValueError("din has no binary_cross_entropy; set loss to cross_entropy or model to sasrec")
        return self


class AlignConfig(Training):
    """Stage I: the semantic embedding adapted, aligned and fused with the collaborative one."""

    section: ClassVar[str] = "align"
    epochs: Epochs = by_data(30, "Epochs at most; the learning rate decays over them.")
    fusion: Literal["sum", "concat"] = Field("sum", description="E_I: E_C + E_T, or both side by side.")
    alpha: float = Field(0.01, ge=0, le=100, description="Weight of the alignment loss; 0 leaves it out.")
    temperature: float = Field(0.1, ge=1e-3, le=10, description="Temperature of the alignment InfoNCE.")
    align_items: int = Field(512, ge=2, le=2**24, description="Items a batch at most in the alignment InfoNCE.")
    graph: Annotated[float, Field(ge=0, le=10), ByData] = by_data(
        0.0, "Weight in E_I of the items that stand beside an item in training histories; 0: none."
    )
    graph_window: int = Field(
        1,
        ge=1,
        le=1000,
        description="Steps that neighbours may stand apart in a history, each further step counting .9 of the one "
        "before. Where who else took an item tells more than what came next, 20 with a graph of 2 or more is worth a "
        "trial.",
    )
    graph_neighbours: int = Field(
        8, ge=1, le=MANY, description="Strongest neighbours that an item has over full_softmax_items; else it has all."
    )
    start: Literal["collaborative", "scratch"] = Field(
        "collaborative", description="Where the collaborative part starts: the stage before, or anew."
    )
    start_norm: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Mean norm of E_C where Stage I starts anew, in parts of E_T's (√d); null: as it comes. Vectors of "
        "din, which are short beside a text's, want about 0.5.",
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
    codes: Annotated[int, Field(ge=2, le=65_535), ByData] = by_data(64, "Codes K a level.")
    iterations: int = Field(50, ge=1, le=100_000, description="Iterations of k-means at most.")
    collisions: Literal["suffix", "reassign"] = Field(
        "suffix",
        description="Items with equal codes: an extra level, or the nearest free code at the last level.",
    )
    rq_vae: RQVAEConfig = Field(default_factory=RQVAEConfig, description="Training of the RQ-VAE.")


class DistillConfig(Section):
    """In-modality knowledge distillation from the frozen teacher embeddings."""

    beta: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Weight of the distillation loss; 0 leaves it out. null: 0, since nothing that it adds could be "
        "told from chance; 0.3 where its head gives the dense score that generation is fused with.",
    )
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

    section: ClassVar[str] = "generator"
    learning_rate: Rate = by_data(2e-3, "Peak learning rate of AdamW.")
    dropout: Dropout = by_data(0.3, "Dropout of embeddings and of feed-forward layers.")
    architecture: Annotated[str, GENERATORS] = Field(
        "timeline",
        description="timeline: one token an item; encoder_decoder: the paper's, one token a code; "
        "causal_encoder_decoder: with an encoder that looks back alone, for all prefixes of a history in one pass.",
    )
    dim: Dim = by_data(64, "Dimensions of the model.")
    layers: int = Field(2, ge=1, le=64, description="Transformer layers over the history.")
    decoder_layers: int = Field(2, ge=1, le=64, description="Layers that turn a context into codes.")
    heads: int = Field(2, ge=1, le=64, description="Attention heads; must divide dim.")
    history: Literal["codes", "codes_and_embedding"] = Field(
        "codes_and_embedding", description="An item of history: its codes, or its frozen embedding beside them."
    )
    stage_one_state: bool = Field(
        False,
        description="Add to what the generator makes of a history what Stage I's frozen model says of it (with "
        "dense=stage_one, codes of the integrated embedding, SASRec in Stage I, equal max_history).",
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
        description="Fit a light ranker of what generation, the dense score and item-kNN find, by these, item-to-item "
        "counts, texts and popularity, on validation users; it recommends where it is better on those left out.",
    )
    ranker_weights: (
        Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=5, max_length=9)] | None
    ) = Field(
        None,
        description="Weights of the ranker's features (generative, dense, successor, text, popularity, predecessor, "
        "item_knn; own_count and own_recency too where the history is not masked), as an earlier model of the same "
        "data has them, perhaps without predecessor and item_knn; null: they are fitted, which train_on_validation "
        "leaves no users for.",
    )
    ranker_file: Place | None = Field(
        None,
        description="A ranker of an earlier model of the same data in place of those weights: the file that lies "
        "beside that model's report where its ranker has a network. Its content, not its name, decides what is cached.",
        json_schema_extra=RUN_ONLY,
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
        if isinstance(self.dim, int) and self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim})")
        if self.ranker_weights is not None and self.ranker_file is not None:
            raise ValueError("ranker_weights and ranker_file are two rankers; leave one of both out")
        for name in ("ranker_weights", "ranker_file"):
            if getattr(self, name) is not None and not self.ranker:
                raise ValueError(f"{name} without ranker would rank nothing; leave one of both out")
        if self.distill.soft_targets > 0 and not (self.trie_mask or self.node_scores):
            raise ValueError("distill.soft_targets needs trie_mask or node_scores: its masses are those of trie nodes")
        return self


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
        pattern=DEVICES,
        description="Where models are trained: auto, cpu, cuda, cuda:N or mps.",
        json_schema_extra=RUN_ONLY,
    )
    steps: StepMode = Field(
        "eager",
        description="How steps of trainings run. eager: each operation by itself; graph: captured once a shape as CUDA "
        "graphs and replayed (cuda); compile: layers through torch.compile, which sums in another order.",
        json_schema_extra=RUN_ONLY,
    )
    compute: ComputeConfig = Field(
        default_factory=ComputeConfig, description="Who computes.", json_schema_extra=RUN_ONLY
    )
    train_on_validation: bool = Field(
        False,
        description="Train on the validation items too: all epochs, with the one evaluate.fusion_weights and "
        "the generator.ranker_file, or ranker_weights, given. What comes out is not comparable with models that never "
        "saw those items.",
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

    @model_validator(mode="before")
    @classmethod
    def _left_to_the_data(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, Mapping):
            return values
        return left_to_the_data(cls, values, built_in=is_built_in(values.get("data")), complete=info.context == STORED)

    @model_validator(mode="after")
    def _choices_go_together(self) -> Experiment:
        for name in ("ranker_weights", "ranker_file"):
            if not self.train_on_validation and getattr(self.generator, name) is not None:
                raise ValueError(f"generator.{name} is for train_on_validation; without it the ranker is fitted")
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
        lengths = (self.generator.max_history, self.align.max_history)
        known = all(isinstance(each, int) for each in lengths)
        if taught and self.collaborative.model == "sasrec" and known and lengths[0] > lengths[1]:
            raise ValueError("soft_targets are Stage I's: set generator.max_history to at most align.max_history")
        return self


BY_DATA = fields_by_data(Experiment)
"""By section the fields that may be left to the data."""


def left_open() -> Experiment:
    """The built-in shop with `AUTO` for all that may follow the data: what a form begins with.

    Whoever names other data there is not to be given the shop's numbers.
    """
    whole = Experiment()
    sections = {
        name: getattr(whole, name).model_copy(update=dict.fromkeys(fields, AUTO)) for name, fields in BY_DATA.items()
    }
    return whole.model_copy(update=sections)
