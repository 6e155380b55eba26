"""Where an experiment is computed: in this process, or by workers on one machine or several.

Knows the names and limits of choices; knows nothing of how they are carried out. All of it decides where and how fast
something is made, never what.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prorec_core.sections import RUN_ONLY, Place, Section


class ComputeConfig(Section):
    """Who computes: this process, or workers of a Ray cluster."""

    engine: Literal["local", "ray"] = Field(
        "local",
        description="local: this process; ray: workers of a Ray cluster (pip install 'prorec[ray]').",
        json_schema_extra=RUN_ONLY,
    )
    address: Place | None = Field(
        None,
        description="The cluster: null, one that is started on this machine for the run; auto, the one that this "
        "machine is part of; HOST:PORT, the same by the address of its head.",
        json_schema_extra=RUN_ONLY,
    )
    workers: int = Field(
        2, ge=1, le=4096, description="Processes that share the work of a stage.", json_schema_extra=RUN_ONLY
    )
    gpus_per_worker: int = Field(
        0, ge=0, le=64, description="GPUs of each; a training uses one.", json_schema_extra=RUN_ONLY
    )
    cpus_per_worker: int = Field(1, ge=1, le=1024, description="Cores of each.", json_schema_extra=RUN_ONLY)

    @model_validator(mode="after")
    def _address_is_of_a_cluster(self) -> ComputeConfig:
        if self.address is not None and self.engine == "local":
            raise ValueError("address is that of a Ray cluster; set engine to ray beside it")
        return self
