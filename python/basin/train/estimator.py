"""Estimator: a job description, with the names and defaults of Azure's class of this name."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence, Union

from basin.core.compute import ComputeTarget
from basin.core.environment import Environment
from basin.core.runconfig import MpiConfiguration, TensorflowConfiguration
from basin.train import job as job_file

DistributedTraining = Union[TensorflowConfiguration, MpiConfiguration, str, Mapping[str, Any]]


class Estimator:
    """What to run, where, in how many processes. `Experiment.submit` runs it. Without a folder: this one.

    docs/estimator.md has the table of the parameters; what is left at None has the job file's default. Only the folder
    may be given without its name. Nothing is checked here but the keywords: a wrong combination is refused when the job
    is submitted or planned, by `basin`, before anything starts.
    """

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
            **older: Any) -> None:
        """`older`: the spellings conda_dependencies_file_path, pip_requirements_file_path and custom_docker_base_image,
        and what only Azure has a use for (vm_size, vm_priority, image_registry_details, source_directory_data_store),
        refused unless None."""
        given = {name: value for name, value in locals().items()
                 if name in job_file.KEYWORDS and name != 'source_directory'}
        self._describe(source_directory, given, older)

    def _describe(self, source_directory: Optional[str], given: Mapping[str, Any], older: Mapping[str, Any]) -> None:
        job_file.check_keywords(type(self).__name__, older)
        self._job = job_file.job_of(source_directory, {**given, **older})

    def job(self) -> Dict[str, Any]:
        """The job as a job file's content, in the job file's names; the experiment is added when it is submitted."""
        return dict(self._job)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(f"{name}={value!r}" for name, value in self._job.items())})'
