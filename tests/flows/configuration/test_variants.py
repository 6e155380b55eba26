"""From names of variants to experiments, or to one clear line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from prorec.flows.commands.compare import compare
from prorec.flows.compare import _settings, seconds_left
from prorec.flows.configuration.experiments import changed, load, preset_files
from prorec.flows.configuration.given import with_lists
from prorec.flows.configuration.variants import EVERY, FULL, Variants, load_variants
from prorec.tasks.stages.baselines import pipeline_of, standing
from prorec.tasks.stages.evaluate_two_stream import SIDES, STREAM
from prorec_core.config import Experiment
from prorec_core.errors import UserError
from prorec_core.evaluation.given_table import file_of

STANDARD = load_variants()


@pytest.mark.parametrize("preset", ["demo", *preset_files()])
def test_every_variant_fits_every_preset(preset: str) -> None:
    base = load(preset)
    for name, variant in STANDARD.variants.items():
        found = STANDARD.experiment(name, base, 3)
        assert found.seed == 3 and found.data == base.data and variant.about
        assert found.name in {base.name, f"{base.name}-{name}"}
    assert STANDARD.experiment(FULL, base, 3) == base.model_copy(update={"seed": 3})


def test_only_what_equals_the_full_method_has_its_name() -> None:
    base = Experiment(name="shop")
    assert STANDARD.experiment("no-alignment", base, 0).name == "shop-no-alignment"
    assert STANDARD.experiment("no-alignment", base, 0).align.alpha == 0
    without = Experiment.model_validate({"name": "shop", "align": {"alpha": 0}})
    assert STANDARD.experiment("no-alignment", without, 0) == without
    longest = Experiment(name="x" * 63)
    assert STANDARD.experiment("semantic", longest, 0).name == "x" * 54 + "-semantic"


def test_groups_stand_for_their_variants_once_and_in_order() -> None:
    assert STANDARD.choose(["prorec", "dense", "din"])[:2] == ["prorec", "aligned"]
    assert STANDARD.choose([EVERY]) == list(STANDARD.variants)
    for group in STANDARD.groups:
        assert len(STANDARD.choose([group])) == len(STANDARD.groups[group])
    assert STANDARD.groups["core"][0] == FULL


def test_the_commands_help_names_every_group() -> None:
    (option,) = (each for each in get_type_hints(compare, include_extras=True)["variants"].__metadata__)
    named = option.help.removeprefix("Variants or groups: ").partition(".")[0].split(", ")
    assert set(named) == {*STANDARD.groups, EVERY}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["semantics"], "variants: unknown variant 'semantics'. Did you mean 'semantic'?"),
        (["cor"], "variants: unknown variant 'cor'. Did you mean 'core'?"),
        ([], "variants: no variant is named. Known: core"),
    ],
)
def test_unknown_names_are_told(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        STANDARD.choose(words)
    assert message in str(error.value)


def test_the_plan_goes_seed_by_seed() -> None:
    plan = STANDARD.plan(["two-stream", "sasrec"], Experiment(seed=9), 2, None)
    assert list(plan.experiments) == [("two-stream", 0), ("sasrec", 0), ("two-stream", 1), ("sasrec", 1)]
    assert plan.reference == "two-stream" and plan.seeds == [0, 1]
    own, first, second = plan.experiments["two-stream", 1]
    assert (first.quantize.embedding, second.quantize.embedding) == ("semantic", "collaborative")
    assert own.seed == first.seed == second.seed == 1
    full = STANDARD.plan(["sasrec", "prorec"], Experiment(), [4, 4, 7], None)
    assert full.reference == "prorec" and full.seeds == [4, 7]
    assert STANDARD.plan(["core"], Experiment(), 1, "sasrec").reference == "sasrec"


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([], "seeds: there is no seed."),
        (-1, "seeds: there is no seed."),
        (10**12, "seeds: 1000000000000 seeds are too many. Give 100 at most."),
        (list(range(101)), "seeds: 101 seeds are too many."),
        ([0, -1], "seeds: seed: must be >= 0 (got -1)."),
        ([2**31], "seeds: seed: must be <= 2.14748e+09"),
    ],
)
def test_seeds_that_cannot_be_are_told(seeds: int | list[int], message: str) -> None:
    with pytest.raises(UserError) as error:
        STANDARD.plan(["core"], Experiment(), seeds, None)
    assert str(error.value).startswith(message)


def _file(folder: Path, **found: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


def test_variants_of_ones_own_are_added_and_replace(tmp_path: Path) -> None:
    mine = {"wide": {"set": {"generator": {"dim": 96, "layers": 3}}}, "semantic": {"set": {"align.alpha": 0}}}
    known = load_variants(_file(tmp_path, variants=mine, groups={"mine": ["prorec", "wide"]}))
    assert known.choose(["mine"]) == ["prorec", "wide"]
    wide = known.experiment("wide", Experiment(), 0).generator
    assert (wide.dim, wide.layers, wide.heads, wide.distill) == (96, 3, 2, Experiment().generator.distill)
    assert known.experiment("semantic", Experiment(), 0).quantize.embedding == "integrated"


def test_a_variant_has_the_values_of_the_one_that_it_is_like(tmp_path: Path) -> None:
    mine = {
        "first": {"set": {"generator": {"dim": 96, "layers": 3}}},
        "second": {"like": "first", "set": {"generator.layers": 1}},
        "third": {"like": "second", "set": {"align.alpha": 0}},
        "paper-full": {"set": {"align.alpha": 1}},
    }
    known = load_variants(_file(tmp_path, variants=mine))
    third = known.experiment("third", Experiment(), 0)
    assert (third.generator.dim, third.generator.layers, third.align.alpha) == (96, 1, 0)
    assert known.described("third") == {"about": "as second, but for", "set": {"align.alpha": 0}}
    # One of one's own takes the place of the standard one for those that are like it, too.
    assert known.experiment("paper-no-distillation", Experiment(), 0).generator.architecture == "timeline"


def test_a_variant_recommends_as_the_one_that_it_is_like(tmp_path: Path) -> None:
    mine = {
        "wider": {"like": "sasrec-ranked", "set": {"collaborative.dim": 96}},
        "wider-still": {"like": "wider", "set": {"collaborative.dim": 128}},
        "alone": {"like": "wider", "scorer": "collaborative"},
        "fused": {"like": "paper-two-stream", "set": {"generator.epochs": 3}},
        "fused-and-ranked": {"like": "fused", "scorer": "two_stream_ranked"},
        "of-a-generator": {"like": "fused", "scorer": "generator"},
        "otherwise-fused": {"like": "fused", "streams": ["tiger", "semantic"]},
    }
    known = load_variants(_file(tmp_path, variants=mine))
    found = {name: (known.scorer_of(name), known.streams_of(name)) for name in mine}
    assert found == {
        "wider": ("collaborative_ranked", []),
        "wider-still": ("collaborative_ranked", []),
        "alone": ("collaborative", []),
        "fused": ("two_stream", ["tiger", "paper-collaborative"]),
        "fused-and-ranked": ("two_stream_ranked", ["tiger", "paper-collaborative"]),
        "of-a-generator": ("generator", []),
        "otherwise-fused": ("two_stream", ["tiger", "semantic"]),
    }
    kept = _settings(known, ["wider-still"])["variant.wider-still"]
    assert (kept["like"], kept["scorer"], kept["streams"]) == ("wider", "collaborative_ranked", [])
    assert known.experiment("wider-still", Experiment(), 0).collaborative.dim == 128
    plan = known.plan(["otherwise-fused"], Experiment(), 1, None)
    streams = plan.experiments["otherwise-fused", 0][1:]
    assert [each.name for each in streams] == [f"demo-otherwise-fused-{name}" for name in ("tiger", "semantic")]
    assert [each.generator.epochs for each in streams] == [3, 3]


def test_what_variants_have_in_place_of_what_is_given_for_all_is_told() -> None:
    base = Experiment.model_validate({"generator": {"epochs": 3, "dim": 32}, "align": {"alpha": 0}})
    plan = load_variants().plan(["prorec", "no-alignment", "paper-two-stream"], base, 2, None)
    told = plan.overridden(base, ["generator.epochs", "generator.dim", "align.alpha", "name", "seed"])
    assert told == {"generator.epochs": {"paper-two-stream": 30}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"variants": {"a": {"like": "tigr"}}}, "'a' is like 'tigr', which is no variant. Did you mean 'tiger'?"),
        ({"variants": {"a": {"like": "b"}, "b": {"like": "a"}}}, "'a' is like itself: a → b → a. Leave out one `like`"),
        ({"variants": {"a": {"sett": {}}}}, "variants.a.sett: unknown field"),
        ({"variants": {"a": {"scorer": "generate"}}}, "variants.a.scorer: must be 'generator'"),
        ({"variants": {"a": {"scorer": "two_stream"}}}, "two_stream fuses two variants"),
        ({"variants": {"a": {"streams": ["prorec", "semantic"]}}}, "variants.a: two_stream fuses two variants"),
        ({"variants": {"a": {"like": "sasrec", "streams": ["prorec", "semantic"]}}}, "two_stream fuses two variants"),
        (
            {"variants": {"a": {"scorer": "two_stream", "streams": ["semantic", "aligned"]}}},
            "'a' cannot fuse 'aligned', which is no generator",
        ),
        ({"groups": {"semantic": ["prorec"]}}, "'semantic' is a variant's name, and cannot be a group's"),
        ({"groups": {"g": ["prorek"]}}, "the group 'g' names 'prorek', which is no variant. Did you mean 'prorec'?"),
        ({"variants": {"A b": {}}}, "'A b' cannot be a name"),
        ({"variants": {"a" * 41: {}}}, "cannot be a name"),
        ({"variants": {"all": {}}}, "'all' cannot be a name"),
        (
            {"variants": {"a": {"set": {"align.alpha": 0, "align": {"alpha": 1}}}}},
            "variants.a.set: the variant gives 'align.alpha' twice. Leave out one of both",
        ),
        (
            {"variants": {"a": {"set": {"align": 3, "align.alpha": 1}}}},
            "variants.a.set: the variant gives 'align' and 'align.alpha', which lies inside it",
        ),
        (
            {"variants": {f"v{number}": {} for number in range(999)}},
            "there are more than 1,000 variants or groups. Leave some out",
        ),
        ({}, "the file holds no variants. Give some under variants:"),
    ],
)
def test_files_that_cannot_be_are_told(tmp_path: Path, found: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_variants(_file(tmp_path, **found))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_what_a_variant_cannot_change_is_told_with_its_file(tmp_path: Path) -> None:
    mine = {"mine": {"set": {"align.alhpa": 1}}, "paper-full": {"set": {"align.alpha": -1}}}
    file = _file(tmp_path, variants=mine)
    # The last is the project's own, and like one of the file's.
    for name, what in (
        ("mine", "align.alhpa: unknown field"),
        ("paper-full", "align.alpha: "),
        ("paper-no-distillation", "align.alpha: "),
    ):
        with pytest.raises(UserError, match=re.escape(f"{file}, variant {name}: {what}")):
            load_variants(file).plan([name], Experiment(), 1, None)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: the file does not exist"):
        load_variants(Path("nowhere.yaml"))
    with pytest.raises(UserError, match=r"this is a folder\. Name a YAML file of variants"):
        load_variants(tmp_path)


def test_what_a_fusing_variant_sets_holds_for_both_of_its_streams(tmp_path: Path) -> None:
    mine = {"short": {"like": "two-stream", "set": {"generator.epochs": 1}}, "alike": {"like": "two-stream"}}
    known, base = load_variants(_file(tmp_path, variants=mine)), Experiment(name="shop")
    plan = known.plan(["two-stream", "short", "alike"], base, 1, None)
    usual, short, alike = (plan.experiments[name, 0] for name in ("two-stream", "short", "alike"))
    assert alike[1:] == usual[1:] and [each.name for each in usual[1:]] == ["shop-semantic", "shop-collaborative"]
    assert [each.generator.epochs for each in short] == [1, 1, 1]
    assert [each.quantize.embedding for each in short[1:]] == ["semantic", "collaborative"]
    assert [each.name for each in short] == ["shop-short", "shop-short-semantic", "shop-short-collaborative"]


def test_one_variant_in_both_streams_is_two_trainings() -> None:
    base = Experiment(name="shop", seed=7)
    plan = STANDARD.plan(["paper-full", "paper-two-trainings"], base, [2, 3], None)
    first, second = plan.experiments["paper-two-trainings", 2][1:]
    # Nothing is trained for it that the method's own row has with that seed.
    assert [first, second] == [plan.experiments["paper-full", seed][0] for seed in (2, 3)]
    assert plan.experiments["paper-two-trainings", 2][0].seed == 2
    (told,) = STANDARD.remarks("paper-two-trainings", [2, 3])
    assert told.startswith("seeds that follow each other share a training")
    assert not STANDARD.remarks("paper-two-trainings", [2, 4]) and not STANDARD.remarks("paper-two-stream", [2, 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.min_user_interactions": 9}, "variant a: a variant cannot change 'data.min_user_interactions'"),
        ({"seed": 1}, "variant a: a variant cannot change 'seed'"),
        ({"name": "b"}, "variant a: a variant cannot change 'name'"),
        ({"evaluate.mask_history": False}, "variant a: a variant cannot change 'evaluate.mask_history'"),
        ({"align.alhpa": 0}, "variant a: align.alhpa: unknown field. Did you mean 'alpha'?"),
        ({"align.alpha": -1}, "variant a: align.alpha: must be >= 0 (got -1)."),
    ],
)
def test_what_a_variant_cannot_change_is_told(settings: dict[str, object], message: str) -> None:
    known = Variants.model_validate({"variants": {"a": {"set": settings}}})
    with pytest.raises(UserError) as error:
        known.experiment("a", Experiment(), 0)
    assert message in str(error.value)


def test_every_stage_follows_what_it_reads() -> None:
    for scorer, stages in {name: pipeline_of(name) for name in standing()}.items():
        known = {f"{name}@{side}" for name in STREAM for side in SIDES} if scorer.startswith("two_stream") else set()
        for stage in stages:
            assert set(stage.reads) <= known, f"{scorer}: {stage.name}"
            known.add(stage.name)
    # Lists of other programs are no variant until somebody has some.
    assert {STANDARD.scorer_of(name) for name in STANDARD.variants} == set(standing()) - {"given"}


def test_time_left_follows_what_the_variants_took() -> None:
    assert seconds_left({}, [("a", 0)]) is None
    own = {("a", 0): 10.0, ("b", 0): 2.0, ("a", 1): 20.0}
    assert seconds_left(own, [("b", 1), ("a", 2)]) == 17.0
    assert seconds_left(own, [("new", 0)]) == 8.5, "the mean of the variants known"
    assert seconds_left(own, []) == 0


@pytest.mark.parametrize("where", ["experiment", "stream"])
def test_two_streams_need_validation(where: str, tmp_path: Path) -> None:
    more = {"train_on_validation": True, "evaluate.fusion_weights": [2]}
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        yaml.safe_dump(
            {
                "variants": {
                    "stream": {"set": more if where == "stream" else {}},
                    "mix": {"scorer": "two_stream", "streams": ["stream", "semantic"]},
                }
            }
        )
    )
    base = changed(Experiment(), more if where == "experiment" else {}, "")
    with pytest.raises(UserError, match="variants mix: train_on_validation leaves nothing to choose"):
        load_variants(mine).plan(["mix"], base, 1, None)


def test_a_ranked_baseline_needs_validation() -> None:
    base = changed(Experiment(), {"train_on_validation": True, "evaluate.fusion_weights": [2]}, "")
    assert STANDARD.plan(["sasrec", "aligned"], base, 1, None).names == ["sasrec", "aligned"]
    with pytest.raises(UserError, match=r"variants aligned-ranked, sasrec-ranked, transition-graph-.*, two-stream-r"):
        STANDARD.plan(["core"], base, 2, None)
    assert STANDARD.plan(["dense"], base, 1, None).names == STANDARD.groups["dense"]


def test_two_streams_read_histories_of_one_length(tmp_path: Path) -> None:
    """It would be found out only once both are trained."""
    mine = {
        "short": {"set": {"generator.max_history": 20}},
        "mix": {"scorer": "two_stream", "streams": ["short", "semantic"]},
    }
    known = load_variants(_file(tmp_path, variants=mine))
    with pytest.raises(UserError, match="variants mix: the two streams read histories of different lengths"):
        known.plan(["mix"], Experiment(), 1, None)


def test_variants_that_will_have_the_same_figures_are_told(tmp_path: Path) -> None:
    mine = {
        "unread": {"like": "aligned", "set": {"generator.dropout": 0.5}},
        "nothing": {},
        "counted": {"scorer": "popularity", "set": {"align.alpha": 0.5}},
        "other": {"set": {"align.alpha": 0.5}},
        "fused": {"scorer": "two_stream", "streams": ["prorec", "prorec"]},
        "fused-other": {"like": "fused", "set": {"align.alpha": 0.5}},
    }
    known = load_variants(_file(tmp_path, variants=mine))
    assert known.by_default() == ["prorec", *sorted(mine)], "compared where nothing is named"
    plan = known.plan([*known.by_default(), "aligned", "aligned-ranked", "popularity"], Experiment(), 2, None)
    assert plan.repeated(known) == {"nothing": "prorec", "aligned": "unread", "popularity": "counted"}
    assert STANDARD.by_default() == ["core"]
    without_graph = Experiment.model_validate({"align": {"graph": 0}})
    assert STANDARD.plan([EVERY], without_graph, 1, None).repeated(STANDARD) == {"no-graph": "prorec"}
    with_graph = Experiment.model_validate({"align": {"graph": 1}})
    assert STANDARD.plan([EVERY], with_graph, 1, None).repeated(STANDARD) == {}


def test_lists_of_other_programs_are_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "b-0.csv", "b-1.csv"):
        (tmp_path / name).touch()
    known, names = with_lists(STANDARD, ["a=a.parquet", "b=b-{seed}.csv"])
    assert names == ["a", "b"] and known.variants.keys() - STANDARD.variants.keys() == {"a", "b"}
    assert known.by_default() == ["prorec", "a", "b"] and known.scorer_of("a") == "given"
    plan = known.plan(["prorec", *names], Experiment(), 2, None)
    files = {part: str(file_of(each.evaluate, part[1])) for part, each in plan.given().items()}
    in_full = {(name, seed): str(tmp_path / file) for (name, seed), file in {
        ("a", 0): "a.parquet", ("b", 0): "b-0.csv", ("a", 1): "a.parquet", ("b", 1): "b-1.csv"
    }.items()}  # fmt: skip
    assert files == in_full
    (tmp_path / "a.parquet").write_text("other")
    assert plan.repeated(known) == {}, "they hold something else"
    (tmp_path / "b-0.csv").write_text("other")
    assert plan.repeated(known) == {"b": "a"}
    with pytest.raises(UserError, match=r"--lists, variant b, evaluate\.lists_file=.*b-2\.csv: there is no such file"):
        known.plan(["b"], Experiment(), 3, None)


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ({"scorer": "given"}, "variant mine, evaluate.lists_file: the scorer 'given' measures lists of a file"),
        (
            {"scorer": "aligned", "set": {"evaluate.lists_file": "x"}},
            "variant mine: evaluate.lists_file is for the scorer",
        ),
    ],
)
def test_lists_and_their_scorer_belong_together(tmp_path: Path, mine: dict[str, object], message: str) -> None:
    known = load_variants(_file(tmp_path, variants={"mine": mine}))
    with pytest.raises(UserError, match=re.escape(message)):
        known.plan(["mine"], Experiment(), 1, None)
    given = Experiment.model_validate({"evaluate": {"lists_file": "x"}})
    with pytest.raises(UserError, match=r"variant aligned: evaluate\.lists_file is for the scorer 'given' alone"):
        STANDARD.plan(["aligned"], given, 1, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.parquet"], "--lists: 'a.parquet' is no NAME=FILE"),
        (["=a.parquet"], "--lists: '=a.parquet' is no NAME=FILE"),
        (["prorec=a.parquet"], "--lists: there is a variant 'prorec' already"),
        (["a=a.parquet", "a=b.parquet"], "--lists: there is a variant 'a' already"),
        (["A b=a.parquet"], "--lists: 'A b' cannot be a name"),
    ],
)
def test_lists_that_cannot_be_a_variant_are_told(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        with_lists(STANDARD, given)
