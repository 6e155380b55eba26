"""What an experiment says of its data and of their texts: the first two sections of its configuration.

Knows the names and limits of choices; knows nothing of how they are carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from prorec_core.registry import ENCODERS, SOURCES, TEXT_BACKENDS
from prorec_core.sections import MANY, MOST_SEED, RUN_ONLY, Name, Place, Probability, Section
from prorec_core.values import AttributeOfKind, Missing, SimilarIds, TimestampFormat, declared_kinds

Moment = Name | Annotated[int, Field(ge=0, le=2**63 - 1)] | None


class DemoShop(Section):
    """Size and planted structure of the generated shop."""

    users: int = Field(3000, ge=50, le=1_000_000, description="Users in the generated shop.")
    items: int = Field(1200, ge=40, le=100_000, description="Items in the generated shop.")
    seed: int = Field(7, ge=0, le=MOST_SEED, description="Seed of the shop itself, apart from the seed of training.")
    repeats: Probability = Field(
        0.0, description="Chance that a user takes again what the user has already, at each step; 0: never."
    )


class ExpectedCounts(Section):
    """What others found after the same filters; what is found here is compared with it, and a difference is told."""

    users: int = Field(0, ge=0, le=MANY, description="Users after filtering; 0: not known.")
    items: int = Field(0, ge=0, le=MANY, description="Items after filtering; 0: not known.")
    interactions: int = Field(0, ge=0, le=MANY, description="Interactions after filtering; 0: not known.")
    source: str = Field("", max_length=1000, description="Where these counts are from.")


class SqlConfig(Section):
    """Two queries that give the tables (source: sql)."""

    connection: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)] = Field(
        "PROREC_SQL",
        description="Name of the environment variable that holds the address of the database: postgresql://… or "
        "duckdb:///FILE. The address itself stands nowhere else.",
        json_schema_extra=RUN_ONLY,
    )
    interactions: Annotated[str, StringConstraints(min_length=1, max_length=100_000)] = Field(
        "SELECT * FROM interactions ORDER BY timestamp", description="Query that gives the interactions."
    )
    items: Annotated[str, StringConstraints(min_length=1, max_length=100_000)] = Field(
        "SELECT * FROM items ORDER BY item_id", description="Query that gives the items."
    )
    snapshot: Name | None = Field(
        None,
        description="Digest of a snapshot that was kept: its rows are read, and no database is asked.",
        json_schema_extra=RUN_ONLY,
    )


class DataConfig(Section):
    """Where interactions and items come from, and what is kept of them."""

    source: Annotated[str, SOURCES] = Field(
        "demo",
        description="demo: the generated shop; tables: Parquet, Arrow, CSV or JSON Lines; recbole: atomic files; "
        "letter: NAME.inter.json and NAME.item.json; sql: two queries; others: the files of this published data set.",
    )
    path: Place | None = Field(
        None, description="Folder with the data (not used by the demo).", json_schema_extra=RUN_ONLY
    )
    demo: DemoShop = Field(default_factory=DemoShop, description="The generated shop (source: demo).")
    interactions_file: Name | None = Field(
        None,
        description="File of interactions in `path`, or a pattern as logs/*.parquet for several; by default "
        "interactions.* or *.inter.",
    )
    items_file: Name | None = Field(
        None, description="File of items in `path`, or a pattern for several; by default items.* or *.item."
    )
    quotes: bool = Field(True, description="CSV, TSV: quotes enclose fields; false: they are characters like others.")
    multiline: bool = Field(False, description="CSV, TSV: a quoted field may have lines that look like rows.")
    user_column: Name = Field("user_id", description="Column of the user's id in the interactions.")
    item_column: Name = Field("item_id", description="Column of the item's id in both files.")
    timestamp_column: Name | None = Field(
        "timestamp", description="Column of the time of an interaction; null: the file is already in order."
    )
    timestamp_format: TimestampFormat = None
    negative_times: Literal["error", "zero"] = Field(
        "error",
        description="Times that are negative numbers: stop with an error, or take them for 0, before all others.",
    )
    missing: Missing = Field(default=[""])
    similar_ids: SimilarIds = "error"
    rating_column: Name | None = Field(None, description="Column of a rating, for `min_rating`.")
    min_rating: float | None = Field(None, ge=-1e9, le=1e9, description="Interactions rated lower are left out.")
    text_columns: list[Name] = Field(
        default=["title", "categories"],
        min_length=1,
        max_length=100,
        description="Item columns that make up its text, in order.",
    )
    text_separator: str = Field(". ", max_length=100, description="What stands between the text columns.")
    title_column: Name | None = Field(
        None, description="Item column shown as its title; by default the first text column."
    )
    attribute_columns: list[Name] = Field(
        default=[],
        max_length=100,
        description="Item columns that are kept with the model, so that rules may choose items by them (`where`).",
    )
    attribute_kinds: list[AttributeOfKind] = Field(
        default=[],
        max_length=100,
        description="What they hold where their texts do not tell, as sku=text: number, boolean, date, texts or text.",
    )
    duplicates: Literal["keep", "exact", "first"] = Field(
        "exact",
        description="keep: all rows; exact: rows with equal user, item and time once; first: each item once a user.",
    )
    min_user_interactions: int = Field(
        5, ge=3, le=MANY, description="k-core: users with fewer are left out; the split needs at least 3."
    )
    min_item_interactions: int = Field(5, ge=1, le=MANY, description="k-core: items with fewer are left out.")
    ties: Literal["input", "shuffle"] = Field(
        "input", description="Order of interactions of a user at the same time: as in the file, or shuffled."
    )
    ties_seed: int = Field(0, ge=0, le=MOST_SEED, description="Seed of the shuffling of ties.")
    split: Literal["leave_one_out", "by_time", "by_position"] = Field(
        "leave_one_out",
        description="leave_one_out: each user's last item tests, the one before validates; by_time: what is earlier "
        "than a moment trains, what follows validates, then tests; by_position: each user's last share tests, for data "
        "without a clock.",
    )
    validation_from: Moment = Field(
        None,
        description="by_time: when validation begins, as 2024-01-31 or 2024-01-31 10:00:00 (UTC), or a number as in "
        "the data; null: data.validation_share says.",
    )
    test_from: Moment = Field(None, description="by_time: when the test begins; null: data.test_share says.")
    validation_share: Probability = Field(
        0.1, description="Share of the interactions that validates: the last before the test; by_position: of a user's."
    )
    test_share: Probability = Field(
        0.1, description="Share of the interactions that tests: the last in time; by_position: of each user's."
    )
    targets: Literal["all", "first"] = Field(
        "all", description="Targets of a user in a stretch (by_time, by_position): every interaction, or the first."
    )
    expected: ExpectedCounts = Field(
        default_factory=ExpectedCounts,
        description="Counts after filtering that the literature gives; others are told as a warning.",
    )
    sql: SqlConfig = Field(default_factory=SqlConfig, description="The queries (source: sql).")
    new_items: Probability = Field(
        0.0,
        description="Share of the items that are held out as new: no model sees an interaction with them, and what "
        "recommends them knows their text alone; 0 holds out none.",
    )
    new_items_seed: int = Field(0, ge=0, le=MOST_SEED, description="Seed of the choice of new items.")
    items_without_text: Literal["keep", "drop", "error"] = Field(
        "keep", description="Items whose text is empty: keep (text is the bare id), drop, or stop with an error."
    )
    items_without_id: Literal["error", "drop"] = Field(
        "error", description="Rows of the items file without an id: stop with an error, or leave them out."
    )
    repeated_items: Literal["error", "first"] = Field(
        "error", description="Items that the items file has more than once: stop with an error, or take the first row."
    )
    unknown_items: Literal["drop", "keep", "error"] = Field(
        "drop", description="Interactions with items that the items file lacks: drop, keep (no text), or error."
    )

    @model_validator(mode="after")
    def _rating_and_minimum(self) -> DataConfig:
        if (self.min_rating is None) != (self.rating_column is None):
            raise ValueError("rating_column and min_rating go together")
        return self

    @model_validator(mode="after")
    def _attributes_once(self) -> DataConfig:
        if len(set(self.attribute_columns)) < len(self.attribute_columns):
            raise ValueError("attribute_columns names a column twice")
        kinds = declared_kinds(self.attribute_kinds)
        if odd := [name for name in kinds if name not in self.attribute_columns]:
            raise ValueError(f"attribute_kinds names '{odd[0]}', which is none of attribute_columns")
        if len(kinds) < len(self.attribute_kinds):
            raise ValueError("attribute_kinds names a column twice")
        return self

    @model_validator(mode="after")
    def _split_has_its_own(self) -> DataConfig:
        moments = [name for name in ("validation_from", "test_from") if getattr(self, name) is not None]
        if moments and self.split != "by_time":
            raise ValueError(f"{moments[0]} is for split: by_time")
        if self.split == "leave_one_out" and self.targets != "all":
            raise ValueError("targets is for split: by_time or by_position; leave_one_out has one target a user")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on: together they must be below 1")
        if self.split == "by_time" and self.new_items > 0:
            raise ValueError("new_items is not for split: by_time, whose new items are those that training never saw")
        return self

    @model_validator(mode="after")
    def _columns_of_their_own(self) -> DataConfig:
        names = [self.user_column, self.item_column, self.timestamp_column, self.rating_column]
        if len(set(given := [name for name in names if name is not None])) < len(given):
            raise ValueError("user_column, item_column, timestamp_column and rating_column must be different columns")
        return self


def is_built_in(data: Any) -> bool:
    """Whether a section `data`, given or checked, is of the built-in shop."""
    source = data.get("source", "demo") if isinstance(data, Mapping) else getattr(data, "source", "demo")
    return bool(source == "demo")


def kept_in(data: DataConfig, folder: Path) -> DataConfig:
    """The same section; what a database gives is kept in this folder, where none is named."""
    return data.model_copy(update={"path": str(folder)}) if data.source == "sql" and data.path is None else data


class VectorSource(Section):
    """Item vectors of one's own: of pictures, of sounds, of another encoder."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$", description="What it is called in reports and models.")
    path: Place | None = Field(
        None,
        description="Parquet file with the columns item_id and `column`; null: the items file has `column`.",
        json_schema_extra=RUN_ONLY,
    )
    column: Name = Field("embedding", description="Column of lists of numbers, all of one length.")
    missing: Literal["error", "mean"] = Field(
        "error", description="Items without a vector: stop with an error, or put them at the mean of the others."
    )


class TextConfig(Section):
    """What items are described by: their texts, vectors of one's own, or both."""

    encoder: Annotated[str, ENCODERS] = Field(
        "sentences",
        description="sentences: a model of sentence-transformers; vectors: item vectors of one's own, from a file, in "
        "its place; none: no texts, the sources in `vectors` alone.",
    )
    model: Place = Field(
        "all-MiniLM-L6-v2",
        description="sentences: a local path, an installed package that carries it, or a model of the hub; vectors: a "
        "Parquet file with the columns item_id and embedding.",
    )
    vectors: list[VectorSource] = Field(
        default=[],
        max_length=16,
        description="Item vectors of one's own beside the text; each source, and the text, is standardised.",
    )
    max_tokens: int = Field(128, ge=8, le=8192, description="Longer texts are cut, in tokens.")
    batch_size: int = Field(64, ge=1, le=4096, description="Texts a batch.", json_schema_extra=RUN_ONLY)
    backend: Annotated[str, TEXT_BACKENDS] = Field(
        "torch",
        description="What computes a model of sentence-transformers: torch; openvino (prorec[openvino]), on CPUs, for "
        "those that multiply int8 and not bfloat16.",
    )
    precision: Literal["auto", "float32"] = Field(
        "auto", description="auto: bfloat16 where the hardware has it (torch), int8 (openvino)."
    )

    @model_validator(mode="after")
    def _sources_of_their_own(self) -> TextConfig:
        names = ["text", *(each.name for each in self.vectors)]
        if len(set(names)) < len(names):
            raise ValueError("the sources in vectors must have names of their own, and none is called text")
        if self.encoder == "none" and not self.vectors:
            raise ValueError("encoder=none needs a source in vectors")
        return self

    @property
    def columns(self) -> bool:
        """Whether a source is a column of the items file, so that it matters where that is and how it is read."""
        return any(each.path is None for each in self.vectors)
