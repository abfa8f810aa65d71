"""Azure's names for errors."""

from basin.errors import Error as AzureMLException
from basin.errors import InvalidArgument as UserErrorException
from basin.errors import RunFailed as ActivityFailedException

__all__ = ['ActivityFailedException', 'AzureMLException', 'UserErrorException']
