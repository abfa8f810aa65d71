"""Inputs, where Azure's programs import them from."""

from basin.core.dataset import FileDataset
from basin.data.data_reference import DataReference

__all__ = ['DataReference', 'FileDataset']
