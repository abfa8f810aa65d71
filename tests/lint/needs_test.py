"""tests/cluster/needs.py: what a machine lacks is a skip, and a failure where nothing may be skipped."""

import os
import pathlib
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'cluster'))
import needs  # noqa: E402  (found by the line above)


def outcome(there, decorated_class, require_all):
    """(skipped, failed) of a test that needs `there`."""
    with mock.patch.dict(os.environ, {needs.REQUIRE_ALL: '1' if require_all else ''}):
        decorator = needs.needs(there, 'there is no browser')

        class Case(unittest.TestCase):
            def test(self):
                pass

        if decorated_class:
            Case = decorator(Case)
        else:
            Case.test = decorator(Case.test)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
        texts = [text for _, text in result.failures + result.errors]
        for text in texts:
            assert f'{needs.REQUIRE_ALL} is set, but there is no browser' in text, text
        return len(result.skipped), len(texts)


class Needs(unittest.TestCase):
    def test_what_is_missing_is_skipped_or_fails(self):
        for decorated_class in (False, True):
            for there in (False, lambda: False):
                with self.subTest(decorated_class=decorated_class, there=there):
                    self.assertEqual(outcome(there, decorated_class, require_all=False), (1, 0))
                    self.assertEqual(outcome(there, decorated_class, require_all=True), (0, 1))

    def test_what_is_there_runs(self):
        for require_all in (False, True):
            self.assertEqual(outcome(True, True, require_all), (0, 0))
            self.assertEqual(outcome(lambda: True, False, require_all), (0, 0))


if __name__ == '__main__':
    unittest.main()
