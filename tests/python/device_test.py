"""basin.Client: arrays in a CUDA device's memory, on the emulated device of builds that have it (tests/cuda_on_host)."""

import ctypes
import unittest

import numpy

import built
import loopback
from basin.client import abi
from loopback import basin

EMULATED = next(iter((built.BINARY / 'cuda_on_host').glob('libbasin_cuda_on_host.so')), None)
TO_DEVICE, TO_HOST = 1, 2  # of cudaMemcpyKind


def floats(*shape):
    return numpy.arange(numpy.prod(shape), dtype='float32').reshape(shape)


class There:
    """An array of the device, as Numba shows its own: no number of a device."""

    def __init__(self, values, stream=None, dtype=None):
        self.values = numpy.array(values)
        self.runtime = ctypes.CDLL(str(EMULATED))
        self.memory = ctypes.c_void_p()
        self.call('cudaMalloc', ctypes.byref(self.memory), ctypes.c_size_t(max(1, self.values.nbytes)))
        self.call('cudaMemcpy', self.memory, ctypes.c_void_p(self.values.ctypes.data),
                  ctypes.c_size_t(self.values.nbytes), TO_DEVICE)
        self.stream = stream

    def call(self, name, *arguments):
        error = getattr(self.runtime, name)(*arguments)
        assert error == 0, f'{name}: {error}'

    def __del__(self):
        self.call('cudaFree', self.memory)

    @property
    def __cuda_array_interface__(self):
        return {'shape': self.values.shape, 'typestr': self.values.dtype.str, 'data': (self.memory.value, False),
                'strides': None, 'version': 3, 'stream': self.stream}

    def read(self):
        values = numpy.empty_like(self.values)
        self.call('cudaMemcpy', ctypes.c_void_p(values.ctypes.data), self.memory, ctypes.c_size_t(values.nbytes), TO_HOST)
        return values


class Shared(There):
    """As PyTorch and CuPy show theirs: by DLPack."""
    device, code = 0, 2
    streams = None

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, stream=None):
        self.streams = (self.streams or []) + [stream]
        shape = (ctypes.c_int64 * self.values.ndim)(*self.values.shape)
        steps = (ctypes.c_int64 * self.values.ndim)(*(step // self.values.itemsize for step in self.values.strides))
        self.tensor = abi.Tensor(data=self.memory, device=abi.Device(2, self.device), ndim=self.values.ndim,
                                 dtype=abi.DType(self.code, self.values.itemsize * 8, 1), shape=shape, strides=steps)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.tensor), b'dltensor', None)


class Keys(Shared):
    code = 0


@unittest.skipIf(EMULATED is None, 'this build has no emulated CUDA device (cmake -DBASIN_CUDA=HOST)')
class DeviceArrays(loopback.ClientCase):
    def model(self):
        return self.alone(lambda model: (model.dense('w', (3, 4)), model.table('user', 4), model.set_rule(basin.Sgd(1)))[:2])

    def test_variables_are_pushed_assigned_and_pulled_where_they_lie(self):
        client, (w, _) = self.model()
        for kind in (There, Shared):
            with self.subTest(kind.__name__):
                pulled = kind(numpy.zeros((3, 4), 'float32'))
                client.assign({w: kind(10 * floats(3, 4))}).wait()
                self.assertIs(client.pushpull({w: kind(floats(3, 4))}, {w: pulled}).wait()[w], pulled)
                numpy.testing.assert_array_equal(pulled.read(), 9 * floats(3, 4))
                numpy.testing.assert_array_equal(client.pull(w).wait(), 9 * floats(3, 4))

    def test_gradients_in_16_bits_are_sent_as_they_are(self):
        client, (w, _) = self.model()
        half = floats(3, 4).astype('float16')
        for gradient in (half, There(half), Shared(half)):
            client.push({w: gradient}).wait()
        bfloat16 = Shared((floats(3, 4).view('uint32') >> 16).astype('uint16'))
        bfloat16.code = 4
        client.push({w: bfloat16}).wait()
        numpy.testing.assert_array_equal(client.pull(w).wait(), -4 * floats(3, 4))

    def test_rows_and_their_keys(self):
        client, (_, user) = self.model()
        gradients = floats(3, 4)
        expected = -numpy.array([gradients[0] + gradients[2], gradients[1], gradients[0] + gradients[2]])
        client.push(user, [5, 7, 5], There(gradients)).wait()
        for keys in ([5, 7, 5], Keys(numpy.array([5, 7, 5], 'int64')), There(numpy.array([5, 7, 5], 'uint64'))):
            rows = Shared(numpy.zeros((3, 4), 'float32'))
            self.assertIs(client.pull(user, keys, rows).wait(), rows)
            numpy.testing.assert_array_equal(rows.read(), expected)
        pooled = There(numpy.zeros((2, 4), 'float32'))
        client.pull(user, [5, 7], pooled, bags=[0, 2, 2], pooling='mean').wait()
        numpy.testing.assert_array_equal(pooled.read(), [(expected[0] + expected[1]) / 2, numpy.zeros(4)])

    def test_calls_go_in_the_order_of_a_stream(self):
        client, (w, _) = self.model()
        gradient, pulled, seen = There(floats(3, 4)), There(numpy.zeros((3, 4), 'float32')), There(numpy.zeros((3, 4), 'float32'))
        stream = ctypes.c_void_p()
        gradient.call('cudaStreamCreateWithFlags', ctypes.byref(stream), 1)
        call = client.pushpull({w: gradient}, {w: pulled}, stream=stream.value)
        call.order_before(stream.value)
        gradient.call('cudaMemcpyAsync', seen.memory, pulled.memory, ctypes.c_size_t(pulled.values.nbytes), 3, stream)
        gradient.call('cudaStreamSynchronize', stream)
        call.wait()
        numpy.testing.assert_array_equal(seen.read(), -floats(3, 4))
        shared = Shared(floats(3, 4))
        client.push({w: shared}, stream=stream.value).wait()
        client.push({w: shared}).wait()
        self.assertEqual(shared.streams, [stream.value, 1])  # 1: the default stream
        client.push({w: There(floats(3, 4), stream=stream.value)}).wait()
        numpy.testing.assert_array_equal(client.pull(w).wait(), -4 * floats(3, 4))
        gradient.call('cudaStreamDestroy', stream)

    def test_what_does_not_fit_is_refused_with_its_name(self):
        client, (w, user) = self.model()
        transposed = Shared(floats(4, 3).T)
        far = Shared(floats(3, 4))
        far.device = 7
        for start, expected in (
                (lambda: client.push({w: There(floats(4, 3))}), r'push of "w": shape is \(4, 3\), expected \(3, 4\)'),
                (lambda: client.push({w: There(floats(3, 4).astype('float64'))}),
                 'push of "w": dtype is float64, expected float32 or float16 or bfloat16'),
                (lambda: client.push({w: transposed}), 'push of "w": the array is not contiguous'),
                (lambda: client.push({w: far}), 'there is no cuda:7'),
                (lambda: client.push(user, Keys(numpy.array([1], 'int32')), There(floats(1, 4))), 'keys of table "user": expected'),
                (lambda: client.pushpull(user, keys=[1], gradients=There(floats(1, 4))), 'table "user": gradients and rows lie in'),
                (lambda: client.push({w: floats(3, 4)}, stream='first'), 'stream: expected a CUDA stream'),
                (lambda: client.push({w: floats(3, 4)}, stream=5), 'all tensors of the call are in host memory'),
                (lambda: client.pull(w).order_before(None), 'no stream is given')):
            with self.subTest(expected), self.assertRaisesRegex(basin.InvalidArgument, expected):
                start()


if __name__ == '__main__':
    unittest.main()
