"""TensorFlow: an estimator whose scripts use TensorFlow, and how its processes are laid out."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Union

from basin.core.compute import ComputeTarget
from basin.core.environment import Environment
from basin.core.runconfig import MpiConfiguration, TensorflowConfiguration
from basin.train import job as job_file
from basin.train.estimator import DistributedTraining, Estimator


class ParameterServer(TensorflowConfiguration):
    """Parameter servers and workers, each with its TF_CONFIG."""


class Mpi(MpiConfiguration):
    """node_count * process_count_per_node processes under mpirun."""


class TensorFlow(Estimator):
    """An Estimator that can add a TensorFlow to the packages: `framework_version`."""

    def __init__(
            self, source_directory: Optional[str] = None, *,
            compute_target: Union[None, str, ComputeTarget] = None,
            entry_script: Optional[str] = None,
            script_params: Optional[Mapping[str, Any]] = None,
            node_count: Optional[int] = None,
            process_count_per_node: Optional[int] = None,
            worker_count: Optional[int] = None,
            parameter_server_count: Optional[int] = None,
            chief_count: Optional[int] = None,
            evaluator_count: Optional[int] = None,
            distributed_backend: Optional[str] = None,
            distributed_training: Optional[DistributedTraining] = None,
            use_gpu: Optional[bool] = None,
            workers_per_gpu: Optional[int] = None,
            use_docker: Optional[bool] = None,
            custom_docker_image: Optional[str] = None,
            user_managed: Optional[bool] = None,
            conda_packages: Optional[Sequence[str]] = None,
            pip_packages: Optional[Sequence[str]] = None,
            conda_dependencies_file: Optional[str] = None,
            pip_requirements_file: Optional[str] = None,
            environment_variables: Optional[Mapping[str, str]] = None,
            environment_definition: Union[None, str, Environment] = None,
            inputs: Optional[Sequence[Any]] = None,
            shm_size: Optional[str] = None,
            max_run_duration_seconds: Optional[int] = None,
            resume_from: Optional[str] = None,
            parameter_server: Optional[str] = None,
            setup: Optional[Sequence[str]] = None,
            secrets: Optional[Sequence[str]] = None,
            roles: Optional[Mapping[str, Any]] = None,
            network: Optional[Mapping[str, Any]] = None,
            training: Optional[Mapping[str, Any]] = None,
            cancel_grace_seconds: Optional[int] = None,
            snapshot_limit_mb: Optional[int] = None,
            slurm: Optional[Mapping[str, Any]] = None,
            kubernetes: Optional[Mapping[str, Any]] = None,
            framework_version: Optional[str] = None,
            **older: Any) -> None:
        given = {name: value for name, value in locals().items()
                 if name in job_file.KEYWORDS and name != 'source_directory'}
        self._describe(source_directory, given, older)
