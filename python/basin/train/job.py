"""An estimator's keywords as the fields of a job file: the same names, checked only for what JSON cannot hold. Whether
the job makes sense is for `basin` to say, once and for all who submit."""

from __future__ import annotations

import difflib
import os
import warnings
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from basin.core.compute import name_of
from basin.core.dataset import NamedInput, check_name
from basin.core.environment import Environment
from basin.core.runconfig import MpiConfiguration, TensorflowConfiguration
from basin.errors import InvalidArgument

# Fields of the job file that take what is given as it is.
PLAIN = (
    'entry_script', 'node_count', 'process_count_per_node', 'distributed_backend', 'worker_count',
    'parameter_server_count', 'chief_count', 'evaluator_count', 'use_gpu', 'workers_per_gpu', 'use_docker',
    'custom_docker_image', 'user_managed', 'conda_packages', 'pip_packages', 'conda_dependencies_file',
    'pip_requirements_file', 'environment_variables', 'shm_size', 'max_run_duration_seconds', 'framework_version',
    'parameter_server', 'setup', 'secrets', 'roles', 'network', 'training', 'cancel_grace_seconds', 'snapshot_limit_mb',
    'slurm', 'kubernetes')
# Fields that `basin` knows and refuses, each with what to do instead: they are handed to it for these words.
LATER = ('restart_policy', 'max_restarts')
# Those that are read here.
READ = ('compute_target', 'script_params', 'inputs', 'distributed_training', 'environment_definition', 'resume_from')
DEPRECATED = {'conda_dependencies_file_path': 'conda_dependencies_file',
              'pip_requirements_file_path': 'pip_requirements_file',
              'custom_docker_base_image': 'custom_docker_image'}
# Azure's own: what each would need does not exist here, so only the value that asks for nothing passes.
AZURE_ONLY = {'vm_size': 'name a target that has such machines with compute_target',
              'vm_priority': 'name a target with compute_target',
              'image_registry_details': 'log in to the registry on the nodes',
              'source_directory_data_store': 'the snapshot goes to the nodes directly'}
KEYWORDS = ('source_directory', *READ, *PLAIN, *LATER, *DEPRECATED, *AZURE_ONLY)


def check_keywords(of: str, given: Mapping[str, Any]) -> None:
    """TypeError for a keyword that is none, with the nearest that is."""
    for name in given:
        if name in KEYWORDS or name in ('_disable_validation', '_show_lint_warnings', '_show_package_warnings',
                                        '_enable_optimized_mode'):
            continue
        nearest = difflib.get_close_matches(name, KEYWORDS, 1)
        hint = f'; did you mean {nearest[0]!r}?' if nearest else ''
        raise TypeError(f'{of}() got an unexpected keyword argument {name!r}{hint}')


def _text(value: Any) -> Any:
    """A script parameter's value: text and numbers as they are; booleans as Python prints them, which is what Azure
    hands over."""
    if isinstance(value, bool) or value is None:
        return '' if value is None else str(value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, 'item'):  # a numpy number
        return value.item()
    return str(value)


def _path(path: Union[str, 'os.PathLike[str]']) -> str:
    """From the working directory: relative paths of the job file would start where that is written for a moment."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


class Inputs:
    """The job's inputs as they are collected; two under one name must be one path."""

    def __init__(self) -> None:
        self.listed: List[Dict[str, str]] = []

    def add(self, item: Any) -> str:
        if isinstance(item, NamedInput):
            item = item.to_job()
        if not isinstance(item, Mapping) or set(item) != {'name', 'path'}:
            raise InvalidArgument(f'inputs: expected dataset.as_named_input("name"), a DataReference or '
                                  f'{{"name": ..., "path": ...}}, found {item!r}')
        name, path = check_name(item['name']), _path(item['path'])
        for other in self.listed:
            if other['name'].lower() == name.lower() and other['path'] != path:
                raise InvalidArgument(f'inputs: {name} is there twice, as {other["path"]} and {path}')
        if {'name': name, 'path': path} not in self.listed:
            self.listed.append({'name': name, 'path': path})
        return name

    def replace(self, item: Any) -> None:
        """In place of the input of that name, if there is one."""
        name = item.name if isinstance(item, NamedInput) else item.get('name') if isinstance(item, Mapping) else None
        self.listed = [other for other in self.listed if other['name'] != name]
        self.add(item)


def _script_params(params: Mapping[str, Any], inputs: Inputs) -> Dict[str, Any]:
    if not isinstance(params, Mapping):
        raise InvalidArgument(f'script_params: expected {{"--flag": value}}, found {type(params).__name__}')
    return {str(flag): {'input': inputs.add(value)} if isinstance(value, NamedInput) else _text(value)
            for flag, value in params.items()}


def _distributed_training(value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, (TensorflowConfiguration, MpiConfiguration)):
        value = value()
    if isinstance(value, (TensorflowConfiguration, MpiConfiguration)):
        return value.to_job()
    if isinstance(value, (str, Mapping)):
        return value
    raise InvalidArgument(f'distributed_training: expected ParameterServer(...) or Mpi(...), found {value!r}')


def _refuse_azure_only(given: Mapping[str, Any]) -> None:
    for name, next_step in AZURE_ONLY.items():
        if given.get(name) is not None:
            raise InvalidArgument(f'{name}: found {given[name]!r}, which Basin has nothing for; {next_step}')


def job_of(source_directory: Optional[str], given: Mapping[str, Any]) -> Dict[str, Any]:
    """The job file's content. What is None was not given and is left out: `basin` has the defaults."""
    _refuse_azure_only(given)
    values = {name: value for name, value in given.items() if value is not None}
    for old, new in DEPRECATED.items():
        if old in values:
            warnings.warn(f'{old} is the older spelling of {new}', DeprecationWarning, stacklevel=4)
            if new in values:
                raise InvalidArgument(f'{old} and {new} are the same; give {new} alone')
            values[new] = values.pop(old)
    job: Dict[str, Any] = {}
    if source_directory is None and not str(values.get('entry_script', '')).startswith('basin:'):
        source_directory = '.'  # a built-in program needs none
    if source_directory is not None:
        job['source_directory'] = _path(source_directory)
    if 'compute_target' in values:
        job['compute_target'] = name_of(values['compute_target'])
    inputs = Inputs()
    for item in values.get('inputs', ()):
        inputs.add(item)
    if 'script_params' in values:
        job['script_params'] = _script_params(values['script_params'], inputs)
    if inputs.listed:
        job['inputs'] = inputs.listed
    if 'distributed_training' in values:
        job['distributed_training'] = _distributed_training(values['distributed_training'])
    if 'environment_definition' in values:
        definition = values['environment_definition']
        if isinstance(definition, Environment):
            # The job file takes it from the source directory, which goes to the nodes as a whole.
            definition = os.path.relpath(definition.file_path, job.get('source_directory', '.'))
        job['environment_definition'] = definition
    if 'resume_from' in values:
        resume_from = values['resume_from']
        # `latest` is no path but a word of the job file.
        job['resume_from'] = resume_from if resume_from in ('', 'latest') else _path(resume_from)
    for name in (*PLAIN, *LATER):
        if name in values:
            value = values[name]
            job[name] = list(value) if isinstance(value, (tuple, set)) else value
    return job


def with_overrides(job: Mapping[str, Any], script_params: Optional[Mapping[str, Any]] = None,
                   inputs: Optional[Sequence[Any]] = None, compute_target: Any = None) -> Dict[str, Any]:
    """The job with what may be given anew at submit."""
    changed = dict(job)
    collected = Inputs()
    collected.listed = [dict(item) for item in job.get('inputs', ())]
    for item in inputs or ():
        collected.replace(item)
    if script_params:
        for value in script_params.values():
            if isinstance(value, NamedInput):
                collected.replace(value)
        changed['script_params'] = {**job.get('script_params', {}), **_script_params(script_params, collected)}
    if collected.listed:
        changed['inputs'] = collected.listed
    if compute_target is not None:
        changed['compute_target'] = name_of(compute_target)
    return changed
