"""basin.Client: rows of tables, pieces of inputs."""

import unittest

import numpy

import loopback
from loopback import basin, processes


class Rows(loopback.ClientCase):
    def table(self, **options):
        return self.alone(lambda model: (model.table('user', 4, **options), model.set_rule(basin.Sgd(1)))[0])

    def test_rows_are_pushed_and_pulled_by_key(self):
        client, user = self.table(initializer=basin.Constant(1))
        gradients = numpy.arange(12, dtype='float32').reshape(3, 4)
        client.push(user, [5, 2 ** 64 - 1, 5], gradients).wait()  # a key twice: its gradients are summed
        rows = numpy.empty((3, 4), 'float32')
        self.assertIs(client.pull(user, numpy.array([5, 7, 2 ** 64 - 1], 'uint64'), rows).wait(), rows)
        numpy.testing.assert_array_equal(rows, [1 - gradients[0] - gradients[2], numpy.ones(4), 1 - gradients[1]])
        after = client.pushpull(user, keys=[7], gradients=numpy.ones((1, 4), 'float32')).wait()
        numpy.testing.assert_array_equal(after, numpy.zeros((1, 4)))
        self.assertEqual(client.pull(user, []).wait().shape, (0, 4))

    def test_bags_are_pooled(self):
        client, user = self.table()
        client.push(user, [1, 2], numpy.array([[-2] * 4, [-4] * 4], 'float32')).wait()
        pooled = client.pull(user, [1, 2, 2], bags=[0, 2, 2, 3], pooling='mean').wait()
        numpy.testing.assert_array_equal(pooled[:, 0], [3, 0, 4])
        client.push(user, [1, 2], numpy.full((1, 4), 2, 'float32'), bags=[0, 2], pooling='mean').wait()
        numpy.testing.assert_array_equal(client.pull(user, [1, 2], bags=[0, 2]).wait()[:, 0], [4])

    def test_wrong_keys_and_shapes_name_the_table(self):
        client, user = self.table()
        for keys, rows, expected in (
                ([-1], None, 'keys of table "user": -1 is below 0'),
                ([0.5], None, 'keys of table "user": found 0.5, expected integers'),
                (numpy.array([0.5]), None, 'keys of table "user": dtype is float64, expected integers'),
                (numpy.array([-1]), None, 'keys of table "user": -1 is below 0'),
                ([[1]], None, r'keys of table "user": shape is \(1, 1\), expected one dimension'),
                ([1], numpy.empty((1, 3), 'float32'), r'rows of table "user": shape is \(1, 3\), expected \(1, 4\)'),
                (None, None, 'table "user": no keys')):
            with self.subTest(expected), self.assertRaisesRegex(basin.InvalidArgument, expected):
                client.pull(user, keys, rows)
        with self.assertRaisesRegex(basin.InvalidArgument, 'user'):
            client.pull(user, [1, 2], bags=[0, 3]).wait()
        with self.assertRaisesRegex(basin.InvalidArgument, "pooling is 'max'"):
            client.pull(user, [1], bags=[0, 1], pooling='max')
        with self.assertRaisesRegex(basin.InvalidArgument, 'no gradients'):
            client.push(user, [1])

    def test_evicted_keys_are_told(self):
        client, user = self.table(max_bytes=1 << 20)
        keys = numpy.arange(80000, dtype='uint64')
        told, missed = [], False
        for first in range(0, len(keys), 4000):
            client.push(user, keys[first:first + 4000], numpy.ones((4000, 4), 'float32')).wait()
            while True:
                some, lost = client.evicted_keys(user, capacity=500)
                told += some.tolist()
                missed |= lost
                if len(some) < 500:
                    break
        self.assertGreater(len(told), 0)
        self.assertFalse(missed)
        gone = numpy.array(sorted(set(told)), 'uint64')
        numpy.testing.assert_array_equal(client.pull(user, gone[gone < 40000]).wait(), 0)


class Inputs(loopback.ClientCase):
    def declare(self, layout, index=0):
        client = self.connect(layout, index=index)
        model = basin.Model()
        model.dense('w', (2,))
        model.add_input('train', items=100, piece_items=40, epochs=2)
        client.declare(model)
        return client

    def test_the_iterator_hands_out_every_example_once_an_epoch(self):
        client = self.declare(self.servers())
        seen = [(piece.epoch, piece.begin, piece.end) for piece in client.inputs('train')]
        self.assertEqual(sorted(seen), [(epoch, begin, end) for epoch in (0, 1) for begin, end in ((0, 40), (40, 80), (80, 100))])
        self.assertIsNone(client.next_input('train'))
        with self.assertRaisesRegex(basin.Error, 'other'):
            client.next_input('other')

    def test_a_piece_is_a_context_and_a_slice(self):
        client = self.declare(self.servers())
        with client.next_input('train') as piece:
            self.assertEqual((len(piece), piece.slice), (40, slice(piece.begin, piece.end)))
        piece.done()  # again does nothing
        self.assertEqual(self.counted(client), 1)

    def test_a_piece_that_was_not_finished_goes_to_another_worker(self):
        layout = self.servers(workers=2)
        first, second = self.declare(layout), self.declare(layout, 1)
        with self.assertRaises(KeyError):
            with second.next_input('train') as lost:
                raise KeyError
        self.assertEqual(self.counted(first), 0)
        second.finish()
        second.close()
        handed = [(piece.epoch, piece.begin) for piece in first.inputs('train')]
        self.assertIn((lost.epoch, lost.begin), handed)
        self.assertEqual(len(handed), 6)

    def counted(self, client):
        inputs = processes.wait_until(lambda: client.stats()['inputs'], 'the input shows')
        return inputs[0]['pieces_done']


if __name__ == '__main__':
    unittest.main()
