"""Workspaces, experiments, runs and models, where Azure's programs import them from."""

from basin.core.compute import ComputeTarget
from basin.core.dataset import Dataset
from basin.core.environment import Environment
from basin.core.experiment import Experiment
from basin.core.model import Model
from basin.core.run import Run
from basin.core.workspace import Workspace

__all__ = ['ComputeTarget', 'Dataset', 'Environment', 'Experiment', 'Model', 'Run', 'Workspace']
