"""What a stage's artifact has to say to the user each time it is used.

Knows stages and their files; knows nothing of screens.
"""

from __future__ import annotations

from prorec.tasks.tracking import store
from prorec_core.artifacts import ArtifactRef, read_json
from prorec_core.config import Experiment


def remarks_of(ref: ArtifactRef, experiment: Experiment) -> list[str]:
    """Sentences on the data, and on targets that no list of this experiment can hold."""
    if ref.stage != "preprocess":
        return []
    from prorec_core.evaluation.remarks import out_of_reach

    path = store.fetch(ref) / "profile.json"
    profile = read_json(path) if path.is_file() else {}
    unreachable = ""
    if experiment.evaluate.mask_history and profile.get("targets_in_history"):
        split, users = profile.get("split"), profile["kept"]["users"]
        names = ("test", "validation")
        unreachable = out_of_reach(
            profile["targets_in_history"], {name: split[name]["targets"] if split else users for name in names}
        )
    return [*profile.get("warnings", []), *([unreachable] if unreachable else [])]
