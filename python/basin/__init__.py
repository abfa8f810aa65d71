"""Basin: a parameter-server service.

- `basin.Client` and what belongs to it: training code on numpy arrays (basin.client).
- `basin.Estimator`, `basin.TensorFlow`, `basin.Experiment`, `basin.Run` and their kin: jobs, in the names of the Azure
  SDK v1. The modules lie as that one's do: `basin.core`, `basin.core.runconfig`, `basin.train.estimator`,
  `basin.train.dnn`; a program moves by replacing `azureml` by `basin` in its imports.

Names are loaded when they are first used: submitting a job needs no numpy, training needs no program `basin`.
"""

from typing import TYPE_CHECKING, Any, List

from basin.errors import Aborted, AlreadyExists, Cancelled, CommandFailed, DataLoss, DeadlineExceeded, Error, \
    FailedPrecondition, Internal, InvalidArgument, InvalidJob, LibraryNotFound, NotFound, OutOfRange, \
    PermissionDenied, ProgramNotFound, ResourceExhausted, RunFailed, Unauthenticated, Unavailable, Unimplemented
from basin.version import __version__

if TYPE_CHECKING:
    from basin.client import Adagrad, Adam, Assigned, Call, Client, Constant, Ftrl, Glorot, He, Initializer, Model, \
        Momentum, Normal, Options, Piece, RowwiseAdagrad, RunState, Sgd, Table, Uniform, Variable, Zeros, allocate
    from basin.core import ComputeTarget, Dataset, Environment, Experiment, Run, Workspace
    from basin.core.runconfig import MpiConfiguration, TensorflowConfiguration
    from basin.data.data_reference import DataReference
    from basin.train.dnn import Mpi, ParameterServer, TensorFlow
    from basin.train.estimator import Estimator

_FROM = {
    'basin.client': ['Adagrad', 'Adam', 'Assigned', 'Call', 'Client', 'Constant', 'Ftrl', 'Glorot', 'He', 'Initializer',
                     'Model', 'Momentum', 'Normal', 'Options', 'Piece', 'RowwiseAdagrad', 'RunState', 'Sgd', 'Table',
                     'Uniform', 'Variable', 'Zeros', 'allocate'],
    'basin.core': ['ComputeTarget', 'Dataset', 'Environment', 'Experiment', 'Run', 'Workspace'],
    'basin.core.runconfig': ['MpiConfiguration', 'TensorflowConfiguration'],
    'basin.data.data_reference': ['DataReference'],
    'basin.train.dnn': ['Mpi', 'ParameterServer', 'TensorFlow'],
    'basin.train.estimator': ['Estimator'],
}
_MODULE_OF = {name: module for module, names in _FROM.items() for name in names}

__all__ = [
    'Aborted', 'Adagrad', 'Adam', 'AlreadyExists', 'Assigned', 'Call', 'Cancelled', 'Client', 'CommandFailed',
    'ComputeTarget', 'Constant', 'DataLoss', 'DataReference', 'Dataset', 'DeadlineExceeded', 'Environment', 'Error',
    'Estimator', 'Experiment', 'FailedPrecondition', 'Ftrl', 'Glorot', 'He', 'Initializer', 'Internal',
    'InvalidArgument', 'InvalidJob', 'LibraryNotFound', 'Model', 'Momentum', 'Mpi', 'MpiConfiguration', 'Normal',
    'NotFound', 'Options', 'OutOfRange', 'ParameterServer', 'PermissionDenied', 'Piece', 'ProgramNotFound',
    'ResourceExhausted', 'RowwiseAdagrad', 'Run', 'RunFailed', 'RunState', 'Sgd', 'Table', 'TensorFlow',
    'TensorflowConfiguration', 'Unauthenticated', 'Unavailable', 'Uniform', 'Unimplemented', 'Variable', 'Workspace',
    'Zeros', '__version__', 'allocate']


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted(__all__)
