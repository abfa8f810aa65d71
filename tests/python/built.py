"""This build and this tree, for the tests of the Python package: import it first."""

import os
import pathlib
import sys

SOURCE = pathlib.Path(os.environ['BASIN_SOURCE_DIR'])
BINARY = pathlib.Path(os.environ['BASIN_BINARY_DIR'])
PACKAGE = SOURCE / 'python'

sys.path.insert(0, str(PACKAGE))
sys.path.insert(0, str(SOURCE / 'tests' / 'cluster'))
# What the user has set means another installation.
for name in ('BASIN_RUNS', 'BASIN_RUN_ID', 'BASIN_TOKEN_FILE', 'BASIN_METRICS_FILE', 'BASIN_GRADIENT_DTYPE',
             'TF_CONFIG'):
    os.environ.pop(name, None)
os.environ['BASIN_LIBRARY'] = str(next(iter(BINARY.glob('lib*/libbasin.so')), BINARY / 'lib' / 'libbasin.so'))
os.environ['BASIN_PROGRAM'] = str(BINARY / 'bin' / 'basin')


def environment(**more):
    """For a process that uses the package."""
    return {**os.environ, 'PYTHONPATH': str(PACKAGE), 'PYTHONDONTWRITEBYTECODE': '1', **more}
