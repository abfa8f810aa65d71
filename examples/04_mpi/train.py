#!/usr/bin/env python3
"""One of several processes that train a network together: each computes the gradient of its part of a batch, and MPI sums the parts."""

import argparse
import gzip
import os
import traceback

import numpy
from mpi4py import MPI

import basin

CLASSES = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='/usr/share/datasets/fashion-mnist')
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--batch-size', type=int, default=128, help='of all processes together')
    parser.add_argument('--learning-rate', type=float, default=1e-3, help='at the start; it falls to 0 over the run')
    parser.add_argument('--seed', type=int, default=1)
    return parser.parse_args()


def load(folder, part):
    """(images [n, 784] float32 in 0 to 1, labels [n]) of part 'train' or 't10k', IDX files of Debian's dataset-fashion-mnist."""
    def read(name, header):
        with gzip.open(os.path.join(folder, f'{part}-{name}-ubyte.gz')) as file:
            return numpy.frombuffer(file.read(), numpy.uint8, offset=header)
    return read('images-idx3', 16).reshape(-1, 784).astype(numpy.float32) / 255, read('labels-idx1', 8)


class Network:
    """784 -> hidden (ReLU) -> 10. All parameters lie in one array, and so do all gradients: one message sums them."""

    def __init__(self, hidden, seed):
        shapes = {'w1': (784, hidden), 'b1': (hidden,), 'w2': (hidden, CLASSES), 'b2': (CLASSES,)}
        size = sum(int(numpy.prod(shape)) for shape in shapes.values())
        self.parameters, self.gradients = numpy.zeros(size, numpy.float32), numpy.zeros(size, numpy.float32)
        self.of, self.gradient_of, at = {}, {}, 0
        for name, shape in shapes.items():
            part = slice(at, at + int(numpy.prod(shape)))
            self.of[name], self.gradient_of[name] = self.parameters[part].reshape(shape), self.gradients[part].reshape(shape)
            at = part.stop
        random = numpy.random.default_rng(seed)
        for name in ('w1', 'w2'):
            limit = numpy.sqrt(6 / sum(shapes[name]))
            self.of[name][:] = random.uniform(-limit, limit, shapes[name])

    def forward(self, images):
        hidden = numpy.maximum(images @ self.of['w1'] + self.of['b1'], 0)
        return hidden, hidden @ self.of['w2'] + self.of['b2']

    def backward(self, images, labels, batch_size):
        """Fills the gradients with this part's share of the mean over the whole batch; returns its share of the loss."""
        hidden, logits = self.forward(images)
        exponentials = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        d = exponentials / exponentials.sum(axis=1, keepdims=True)
        rows = numpy.arange(len(labels))
        loss = -numpy.log(numpy.maximum(d[rows, labels], 1e-30)).sum() / batch_size
        d[rows, labels] -= 1
        d /= batch_size
        dh = d @ self.of['w2'].T
        dh[hidden <= 0] = 0
        numpy.matmul(images.T, dh, out=self.gradient_of['w1'])
        numpy.sum(dh, axis=0, out=self.gradient_of['b1'])
        numpy.matmul(hidden.T, d, out=self.gradient_of['w2'])
        numpy.sum(d, axis=0, out=self.gradient_of['b2'])
        return float(loss)

    def accuracy(self, images, labels):
        right = sum(int((self.forward(images[i:i + 1000])[1].argmax(axis=1) == labels[i:i + 1000]).sum())
                    for i in range(0, len(images), 1000))
        return right / len(images)


class Adam:
    def __init__(self, parameters):
        self.parameters, self.step = parameters, 0
        self.mean, self.square = numpy.zeros_like(parameters), numpy.zeros_like(parameters)

    def apply(self, gradients, rate):
        self.step += 1
        self.mean += 0.1 * (gradients - self.mean)
        self.square += 0.001 * (gradients * gradients - self.square)
        rate *= numpy.sqrt(1 - 0.999 ** self.step) / (1 - 0.9 ** self.step)
        self.parameters -= numpy.float32(rate) * self.mean / (numpy.sqrt(self.square) + 1e-8)


def main():
    args = arguments()
    world = MPI.COMM_WORLD
    images, labels = load(args.data, 'train')
    network = Network(args.hidden, args.seed)
    world.Bcast(network.parameters, root=0)  # all begin alike, whatever made the first values
    optimizer = Adam(network.parameters)
    run = basin.Run.get_context()
    steps, step = args.epochs * -(-len(images) // args.batch_size), 0
    for epoch in range(args.epochs):
        order = numpy.random.default_rng([args.seed, epoch]).permutation(len(images))  # the same in every process
        losses = []
        for first in range(0, len(images), args.batch_size):
            batch = order[first:first + args.batch_size]
            mine = batch[world.rank::world.size]
            losses.append(network.backward(images[mine], labels[mine], len(batch)))
            world.Allreduce(MPI.IN_PLACE, network.gradients)  # the sum of all shares: the mean over the batch
            optimizer.apply(network.gradients, args.learning_rate * (1 - step / steps))
            step += 1
        loss = world.reduce(sum(losses) / len(losses))
        if world.rank == 0:
            run.log('loss', loss)
            print(f'epoch {epoch + 1} of {args.epochs}: loss {loss:.4f}', flush=True)
    if world.rank == 0:
        reached = network.accuracy(*load(args.data, 't10k'))
        os.makedirs('outputs', exist_ok=True)
        numpy.savez('outputs/model.npz', **network.of)
        run.log('test_accuracy', reached)
        print(f'{world.size} processes, test accuracy {reached:.4f}', flush=True)


if __name__ == '__main__':
    try:
        main()
    except BaseException:
        # Otherwise this process would wait for the others at its end, and they for its next message.
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
