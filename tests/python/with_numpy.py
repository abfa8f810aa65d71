"""with_numpy.py TEST.py [ARGUMENT...]: runs a test of this folder in a virtual environment with numpy and mypy.

Exit code 77, a skip, where there is none and nothing may be installed (BASIN_TEST_NO_INSTALL), or PyPI is out of reach;
1, a failure, where BASIN_TEST_REQUIRE_ALL is set.
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / 'cluster'), str(HERE.parent / 'install')]
import needs  # noqa: E402  (the path is set above)
import virtual_environment  # noqa: E402

REQUIREMENTS = ('numpy==2.4.6', 'mypy==2.4.1')


def main():
    try:
        python = virtual_environment.python_with(*REQUIREMENTS)
    except virtual_environment.NotThere as reason:
        print(needs.message(reason) or f'skipped: {reason}')
        return 1 if needs.message(reason) else 77
    os.execv(python, [python, '-B', str(HERE / sys.argv[1]), '-v', *sys.argv[2:]])


if __name__ == '__main__':
    sys.exit(main())
