"""Variants of an experiment by name: what each changes, what recommends in it, and which names belong together.

Knows YAML and names; knows nothing of how variants are run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from prorec.flows.configuration.experiments import changed, explained, read_yaml
from prorec.tasks.local import paths
from prorec.tasks.stages.baselines import pipeline_of, standing
from prorec.tasks.tracking.mlflow_runs import flatten
from prorec_core.config import Experiment
from prorec_core.errors import UserError, did_you_mean
from prorec_core.evaluation.given_table import digest, file_of
from prorec_core.metrics.scorers import GENERATOR, GIVEN, ranked_baselines
from prorec_core.registry import one_of
from prorec_core.sections import Section

FULL = "prorec"
"""The variant that is the experiment as it stands."""
EVERY = "all"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_LONGEST_NAME = 63
_MOST_SEEDS = 100
_MOST = 1000
_OF_ALL = {"name", "seed", "device", "data", "evaluate.mask_history", "evaluate.list_length"}
"""What no variant may change: all of them are measured on the same users in the same way."""


class Variant(Section):
    """What a variant changes of an experiment, and what recommends in it."""

    about: str = Field("", max_length=1000, description="What it is, in a few words.")
    like: str = Field("", max_length=40, description="The variant whose values and scorer it has, but for its own.")
    set: dict[str, Any] = Field(
        default_factory=dict, max_length=500, description="Values by dotted place, as with --set."
    )
    scorer: str | None = Field(
        None,
        description="What recommends; the pipeline ends where this is ready. By default as in the variant that it is "
        "like, or else the generator.",
    )
    streams: list[str] = Field(
        default_factory=list,
        max_length=2,
        description="The two variants that two_stream fuses; one twice: two trainings, the second with the next seed.",
    )
    _file: str = PrivateAttr("")

    @property
    def file(self) -> str:
        """The file in which it stands, for whoever is told of a mistake; "" for the project's own."""
        return self._file

    def stands_in(self, file: Path) -> None:
        """Have mistakes in it told with the file."""
        self._file = str(file)

    @field_validator("scorer")
    @classmethod
    def _known(cls, given: str | None) -> str | None:
        return None if given is None else one_of(given, standing())


@dataclass(frozen=True)
class Plan:
    """What a comparison runs.

    Attributes:
        names: the variants, in order.
        seeds: each variant's, in order.
        reference: the variant that the others are held against.
        experiments: by variant and seed its experiment, and those of its streams after it.
    """

    names: list[str]
    seeds: list[int]
    reference: str
    experiments: dict[tuple[str, int], list[Experiment]]

    def overridden(self, base: Experiment, places: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Where variants, or streams of theirs, have another value than the base; each has its own name and seed.

        Args:
            base: what is varied.
            places: the dotted places that are asked for.

        Returns:
            By place and variant its value there; nothing of places where all have the base's.
        """
        given = dict(flatten(base.model_dump()))
        found: dict[str, dict[str, Any]] = {place: {} for place in places if place in given}
        for (name, _), experiments in self.experiments.items():
            for each in experiments:
                own = dict(flatten(each.model_dump())) | {"name": base.name, "seed": base.seed}
                for place, others in found.items():
                    if own.get(place) != given[place]:
                        others[name] = own.get(place)
        return {place: others for place, others in found.items() if others}

    def given(self) -> dict[tuple[str, int], Experiment]:
        """The experiments of variants that are lists of other programs, by variant and seed."""
        return {part: own[0] for part, own in self.experiments.items() if own[0].evaluate.lists_file is not None}

    def repeated(self, known: Variants) -> dict[str, str]:
        """Variants that will have the very figures of one before them, and that one.

        Args:
            known: the variants, for how each recommends.
        """
        found: dict[str, str] = {}
        first: dict[str, str] = {}
        for name in self.names:
            scorer, own = known.scorer_of(name), self.experiments[name, self.seeds[0]]
            *makes, measuring, _report = pipeline_of(scorer)
            read = [{**stage.values(each), "name": ""} for each in own[1:] or own for stage in makes]
            lists = digest(own[0].evaluate, own[0].seed) if scorer == GIVEN else ""
            read.append({**measuring.values(own[0]), "name": "", "lists": lists})
            if (before := first.setdefault(json.dumps([scorer, own[0].seed, read], default=str), name)) != name:
                found[name] = before
        return found


class Variants(Section):
    """Variants and groups of them, by name."""

    variants: dict[str, Variant] = Field(default_factory=dict, max_length=_MOST, description="Variants by name.")
    groups: dict[str, Annotated[list[str], Field(max_length=_MOST)]] = Field(
        default_factory=dict, max_length=_MOST, description="Names that belong together, in order."
    )

    def choose(self, words: Sequence[str]) -> list[str]:
        """The variants that some names and groups stand for, each once, in the order named.

        Raises:
            UserError: an unknown name, or no name at all.
        """
        chosen: dict[str, None] = {}
        for word in words:
            if word not in self.variants and word not in self.groups and word != EVERY:
                known = [EVERY, *self.groups, *self.variants]
                raise UserError(f"unknown variant '{word}'", place="variants", cure=did_you_mean(word, known))
            names = self.variants if word == EVERY else self.groups.get(word, [word])
            chosen |= dict.fromkeys(names)
        if not chosen:
            raise UserError("no variant is named", place="variants", cure=f"Known: {', '.join(self.groups)}, {EVERY}")
        return list(chosen)

    def by_default(self) -> list[str]:
        """What is compared where nothing is named: `prorec` and all that is one's own, or else `core`."""
        own = [name for name, variant in self.variants.items() if variant.file]
        return list(dict.fromkeys([FULL, *own])) if own else ["core"]

    def plan(self, words: Sequence[str], base: Experiment, seeds: int | list[int], against: str | None) -> Plan:
        """What is to be run where these variants and groups are asked for.

        Args:
            words: names of variants and groups.
            base: what is varied; its own seed does not count.
            seeds: the seeds, or how many, from 0.
            against: the reference; by default `prorec`, or else the first variant.

        Raises:
            UserError: a name, a seed or a variant's settings cannot be.
        """
        names, chosen = self.choose(words), _seeds(seeds)
        reference = against or (FULL if FULL in names else names[0])
        if reference not in names:
            raise UserError(f"'{reference}' is not compared", place="against", cure=f"Compared: {', '.join(names)}")
        experiments = {
            (name, seed): [
                self.experiment(name, base, seed),
                *self._streams(name, base, seed),
            ]
            for seed in chosen
            for name in names
        }
        choosing = dict.fromkeys(
            name
            for (name, _), own in experiments.items()
            if (len(own) > 1 or self.scorer_of(name) in ranked_baselines())
            and any(each.train_on_validation for each in own)
        )
        if choosing:
            raise UserError(
                "train_on_validation leaves nothing to choose a second stream's weight on, or to fit a ranker on",
                place=f"variants {', '.join(choosing)}",
                cure="Leave out train_on_validation, or these variants",
            )
        uneven = dict.fromkeys(
            name for (name, _), own in experiments.items() if len({each.generator.max_history for each in own[1:]}) > 1
        )
        if uneven:
            raise UserError(
                "the two streams read histories of different lengths (generator.max_history)",
                place=f"variants {', '.join(uneven)}",
                cure="Give both the same, or leave out these variants",
            )
        for (name, seed), (own, *_) in experiments.items():
            if self.scorer_of(name) == GIVEN:
                file_of(own.evaluate, seed, f"{self._place(name)}, evaluate.lists_file")
            elif own.evaluate.lists_file is not None:
                raise UserError(
                    f"evaluate.lists_file is for the scorer '{GIVEN}' alone",
                    place=self._place(name),
                    cure="Leave it out, or give the lists to a variant of their own: --lists NAME=FILE",
                )
        return Plan(names, chosen, reference, experiments)

    def settings(self, name: str) -> dict[str, Any]:
        """What a variant changes, by dotted place: its own values over those of the variant that it is like."""
        variant = self.variants[name]
        return (self.settings(variant.like) if variant.like else {}) | dict(flatten(variant.set))

    def scorer_of(self, name: str) -> str:
        """What recommends in a variant: what it says, or else as in the one that it is like."""
        variant = self.variants[name]
        return variant.scorer or (self.scorer_of(variant.like) if variant.like else GENERATOR)

    def streams_of(self, name: str) -> list[str]:
        """The two variants that one fuses, found likewise; none where its scorer fuses nothing."""
        variant = self.variants[name]
        if variant.streams or not variant.like or not _fuses(self.scorer_of(name)):
            return variant.streams
        return self.streams_of(variant.like)

    def described(self, name: str) -> dict[str, Any]:
        """What a variant is, as a page tells it: `about` in words, and `set`, what it changes of the one it is like."""
        variant = self.variants[name]
        words = [variant.about, *([f"as {variant.like}, but for"] if variant.like else [])]
        return {"about": "; ".join(filter(None, words)), "set": variant.set}

    def remarks(self, name: str, seeds: Sequence[int]) -> list[str]:
        """What is to be known of a variant's figures with some seeds."""
        streams = self.streams_of(name)
        if not streams or len(set(streams)) > 1 or all(seed + 1 not in seeds for seed in seeds):
            return []
        return ["seeds that follow each other share a training, so that ± is less than between trainings of their own"]

    def experiment(self, name: str, base: Experiment, seed: int) -> Experiment:
        """The experiment of a variant. A name of its own keeps its generator apart from the experiment's own.

        Raises:
            UserError: the variant changes what all must share, or something that does not exist.
        """
        place, settings = self._place(name), self.settings(name)
        for key in settings:
            if key in _OF_ALL or key.split(".")[0] in _OF_ALL:
                raise UserError(f"a variant cannot change '{key}'", place=place, cure="All share data, seeds, protocol")
        seeded = base.model_copy(update={"seed": seed})
        mine = changed(seeded, settings, place)
        if mine == seeded:
            return mine
        return _named(mine, base, name)

    def _place(self, name: str) -> str:
        """Where a variant, or the nearest one that it is like, stands in a file, for whoever is told of a mistake."""
        line = [name]
        while like := self.variants[line[-1]].like:
            line.append(like)
        files = [self.variants[each].file for each in line]
        return f"{next(filter(None, files))}, variant {name}" if any(files) else f"variant {name}"

    def _streams(self, name: str, base: Experiment, seed: int) -> list[Experiment]:
        """The experiments of a variant's streams; of one variant twice, the second has the next seed."""
        names = self.streams_of(name)
        return [self._stream(each, name, base, seed + names[:place].count(each)) for place, each in enumerate(names)]

    def _stream(self, stream: str, name: str, base: Experiment, seed: int) -> Experiment:
        """The experiment of a stream, with what the variant that fuses it sets for both."""
        plain = self.experiment(stream, base, seed)
        mine = changed(plain, self.settings(name), self._place(name))
        return plain if mine == plain else _named(mine, base, f"{name}-{stream}")


def _named(experiment: Experiment, base: Experiment, end: str) -> Experiment:
    """The experiment under the base's name with an end to it, as long as a name may be."""
    end = end[: _LONGEST_NAME - 2]
    return experiment.model_copy(update={"name": f"{base.name[: _LONGEST_NAME - len(end) - 1]}-{end}"})


def _fuses(scorer: str) -> bool:
    return scorer.startswith("two_stream")


def _seeds(asked: int | list[int]) -> list[int]:
    """The seeds, each once, where a count or seeds are asked for."""
    count = asked if isinstance(asked, int) else len(asked)
    if count < 1:
        raise UserError("there is no seed", place="seeds", cure="Give a count of at least 1, or some seeds")
    if count > _MOST_SEEDS:
        raise UserError(f"{count} seeds are too many", place="seeds", cure=f"Give {_MOST_SEEDS} at most")
    chosen = list(range(count)) if isinstance(asked, int) else list(dict.fromkeys(asked))
    for seed in (min(chosen), max(chosen)):
        changed(Experiment(), {"seed": seed}, "seeds")
    return chosen


def load_variants(own: Path | None = None) -> Variants:
    """The variants that come with the project, and those of a file.

    Raises:
        UserError: the file cannot be read, or a name or group in it cannot be.
    """
    found = _read(paths.installed("configs") / "variants" / "standard.yaml")
    if own is None:
        return found
    mine = _read(own)
    for variant in mine.variants.values():
        variant.stands_in(own)
    return joined(found, mine, str(own))


def joined(first: Variants, second: Variants, place: str) -> Variants:
    """Both, the second's entries in place of equally named ones of the first.

    Raises:
        UserError: a group, a two_stream or a `like` names what is not there, a variant is like itself or gives a field
            twice, or there are too many.
    """
    variants, groups = {**first.variants, **second.variants}, {**first.groups, **second.groups}
    if max(len(variants), len(groups)) > _MOST:
        problem = f"with those that come with the project there are more than {_MOST:,} variants or groups"
        raise UserError(problem, place=place, cure="Leave some out")
    both = Variants(variants=variants, groups=groups)
    for name in both.variants:
        fields = [field for field, _ in flatten(both.variants[name].set)]
        for field in fields:
            inside = [other for other in fields if other.startswith(f"{field}.")]
            if fields.count(field) > 1 or inside:
                told = f"'{field}' and '{inside[0]}', which lies inside it" if inside else f"'{field}' twice"
                where = f"{place}, variants.{name}.set"
                raise UserError(f"the variant gives {told}", place=where, cure="Leave out one of both")
    for name in both.variants | both.groups:
        if name == EVERY or not _NAME.fullmatch(name):
            raise UserError(
                f"'{name}' cannot be a name", place=place, cure="Use small letters, digits and '-', 40 at most"
            )
    for group, names in both.groups.items():
        if group in both.variants:
            raise UserError(
                f"'{group}' is a variant's name, and cannot be a group's", place=place, cure="Rename one of both"
            )
        for name in names:
            if name not in both.variants:
                cure = did_you_mean(name, both.variants) if name not in both.groups else "A group holds variants alone"
                raise UserError(f"the group '{group}' names '{name}', which is no variant", place=place, cure=cure)
    for name in both.variants:
        line = [name]
        while like := both.variants[line[-1]].like:
            if like not in both.variants:
                cure = did_you_mean(like, both.variants)
                raise UserError(f"'{line[-1]}' is like '{like}', which is no variant", place=place, cure=cure)
            if like in line:
                raise UserError(
                    f"'{like}' is like itself: {' → '.join([*line, like])}", place=place, cure="Leave out one `like`"
                )
            line.append(like)
    generators = [name for name in both.variants if both.scorer_of(name) == GENERATOR]
    for variant in both.variants:
        streams = both.streams_of(variant)
        if len(streams) != (2 if _fuses(both.scorer_of(variant)) else 0):
            raise UserError(
                "two_stream fuses two variants, named under streams; nothing else has streams",
                place=f"{place}, variants.{variant}",
            )
        for name in streams:
            if name not in generators:
                cure = did_you_mean(name, generators) if name not in both.variants else "Fuse two that generate"
                raise UserError(f"'{variant}' cannot fuse '{name}', which is no generator", place=place, cure=cure)
    return both


def _read(path: Path) -> Variants:
    if not path.is_file():
        problem = "this is a folder" if path.is_dir() else "the file does not exist"
        raise UserError(problem, place=str(path), cure="Name a YAML file of variants")
    found = read_yaml(path)
    if not found:
        raise UserError("the file holds no variants", place=str(path), cure="Give some under variants:")
    try:
        return Variants.model_validate(found)
    except ValidationError as error:
        raise explained(error, str(path), root=Variants) from error
