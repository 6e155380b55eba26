"""A short campaign of damage: every kind of file that needs no pipeline, damaged in every way."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.corruption import DAMAGES, DATABASES, campaign, kinds, small_store


def test_no_damage_is_used_in_silence(artifacts_folder: Path, tmp_path: Path) -> None:
    small_store(artifacts_folder)
    (tmp_path / "scratch").mkdir()
    every = kinds(artifacts_folder, tmp_path / "scratch", None)
    figures = campaign(every, 0, lambda turn: turn < len(DAMAGES))
    assert figures.failures == []
    assert set(figures.counts) == {
        *("files of preprocess", "manifests", "experiment.json", "summary.json", "downloads"),
        *("mlflow.db", "study", "checkpoints", "chunks of a batch"),
    }
    for kind, found in figures.counts.items():
        assert sum(found.values()) == len(DAMAGES)
        # A flipped bit in a page of SQLite that nobody reads changes nothing.
        assert kind in DATABASES or found["harmless"] <= 1, (kind, found)
