"""What a test needs of its machine. Where that is missing the test is skipped with the reason; where BASIN_TEST_REQUIRE_ALL
is set, as .ci/run does, it fails: there a skip would be a check that nobody makes."""

import os
import unittest

REQUIRE_ALL = "BASIN_TEST_REQUIRE_ALL"


def message(reason):
    """None where a test may be skipped for this reason; otherwise what to say of its failure."""
    return f"{REQUIRE_ALL} is set, but {reason}" if os.environ.get(REQUIRE_ALL) else None


def skip(reason):
    """In a test, setUp or setUpClass."""
    if message(reason):
        raise AssertionError(message(reason))
    raise unittest.SkipTest(reason)


def needs(there, reason):
    """Decorates a test or a class of tests. `there`: whether it is, or a function that says so."""
    def decorated(test):
        if not message(reason):
            return unittest.skipUnless(there() if callable(there) else there, reason)(test)
        if there() if callable(there) else there:
            return test
        if isinstance(test, type):
            test.setUpClass = classmethod(lambda _: skip(reason))
            return test
        return lambda *_: skip(reason)
    return decorated
