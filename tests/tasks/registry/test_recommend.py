"""Where lists for many users are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from prorec.tasks.local import paths
from prorec.tasks.registry.recommend import BatchRequest, _output
from prorec.tasks.registry.recommenders import RegisteredVersion
from prorec_core.errors import UserError

VERSION = RegisteredVersion(name="prorec-shop", version="4", model_id="m", location="", manifest_sha256="")


def test_lists_for_some_users_never_take_the_place_of_those_for_all(artifacts_folder: Path, tmp_path: Path) -> None:
    carts, own = tmp_path / "carts.csv", tmp_path / "carts.parquet"
    carts.touch()
    assert _output(BatchRequest(), VERSION) == paths.recommendations("prorec-shop", "4")
    with pytest.raises(UserError, match=r"--output: lists for the users of a file .* Name a file for them"):
        _output(BatchRequest(users=str(carts)), VERSION)
    ruled = {"exclude": {"items": ["x"]}}
    with pytest.raises(UserError, match="--output: lists that follow a rule would take the place of those for all"):
        _output(BatchRequest.model_validate(ruled), VERSION)
    assert _output(BatchRequest.model_validate({**ruled, "output": str(own)}), VERSION) == own
    assert _output(BatchRequest(users=str(carts), output=str(own)), VERSION) == own
