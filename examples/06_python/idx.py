"""Fashion-MNIST's files: the IDX format, gzip or plain."""

import gzip
import os

import numpy


def read_idx(folder, name):
    """The unsigned bytes of folder/name or folder/name.gz, in the shape that the file says."""
    path = os.path.join(folder, name)
    opened = open(path, 'rb') if os.path.exists(path) else gzip.open(path + '.gz', 'rb')
    with opened as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != b'\0\0\x08':
            raise ValueError(f'{path}: expected an IDX file of unsigned bytes, found {magic!r} at its start')
        shape = numpy.frombuffer(file.read(4 * magic[3]), '>u4').astype(int)
        return numpy.frombuffer(file.read(), numpy.uint8).reshape(shape)


def load(folder, part):
    """(images [n, pixels] float32 in 0 to 1, labels [n] int64) of part 'train' or 't10k'."""
    images = read_idx(folder, f'{part}-images-idx3-ubyte')
    labels = read_idx(folder, f'{part}-labels-idx1-ubyte')
    return images.reshape(len(images), -1).astype(numpy.float32) / 255, labels.astype(numpy.int64)
