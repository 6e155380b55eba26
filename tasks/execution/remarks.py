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
    from prorec_core.evaluation.remarks import remarks_on_data

    path = store.fetch(ref) / "profile.json"
    profile = read_json(path) if path.is_file() else {}
    return remarks_on_data(profile, mask_history=experiment.evaluate.mask_history)
