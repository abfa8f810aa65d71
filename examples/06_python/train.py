#!/usr/bin/env python3
"""One worker: trains a numpy model on Fashion-MNIST through parameter servers; the chief prints the accuracy."""

import argparse
import os

import numpy

import basin
import idx
import network

PIECE_BATCHES = 8  # a piece of the input is so many batches


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='/usr/share/datasets/fashion-mnist')
    parser.add_argument('--model', choices=('softmax', 'two-layers'), default='two-layers')
    parser.add_argument('--hidden', type=int, default=256)
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--learning-rate', type=float, default=1e-3, help='at the start; it falls to 0 over the run')
    parser.add_argument('--seed', type=int, default=1)
    return parser.parse_args()


def declare(client, model, args, items):
    """Declares the model's variables and its input; {name: variable}."""
    declared = basin.Model()
    variables = {}
    for number, (name, shape) in enumerate(model.shapes.items()):
        start = basin.Glorot(args.seed + number) if len(shape) == 2 else basin.Zeros()
        variables[name] = declared.dense(name, shape, start)
    declared.set_rule(basin.Adam(args.learning_rate))
    # In ascending order: what the pieces are pieces of is shuffled anew in each epoch (`train`).
    declared.add_input('train', items, PIECE_BATCHES * args.batch_size, args.epochs)
    client.declare(declared)
    return variables


def train(client, model, variables, args, images, labels):
    values = {name: numpy.empty(variable.shape, numpy.float32) for name, variable in variables.items()}
    # Memory that servers of this host read gradients from directly.
    gradients = {name: basin.allocate(variable.shape) for name, variable in variables.items()}
    pulled = {variable: values[name] for name, variable in variables.items()}
    pushed = {variable: gradients[name] for name, variable in variables.items()}
    order, epoch = None, None
    client.pull(pulled).wait()
    for piece in client.inputs('train'):
        if piece.epoch != epoch:
            # The same in every worker, so that their pieces are parts of one order.
            epoch = piece.epoch
            order = numpy.random.default_rng([args.seed, epoch]).permutation(len(images))
        for first in range(piece.begin, piece.end, args.batch_size):
            batch = order[first:min(first + args.batch_size, piece.end)]
            loss = model.gradients(values, images[batch], labels[batch], gradients)
            done = (epoch + first / len(images)) / args.epochs  # of all that the workers do together
            client.set_learning_rate(args.learning_rate * (1 - done))
            client.pushpull(pushed, pulled).wait()
            client.step(loss=loss)


def main():
    args = arguments()
    images, labels = idx.load(args.data, 'train')
    classes = int(labels.max()) + 1
    if args.model == 'softmax':
        model = network.Softmax(images.shape[1], classes)
    else:
        model = network.TwoLayers(images.shape[1], args.hidden, classes)
    with basin.Client.connect() as client:
        variables = declare(client, model, args, len(images))
        train(client, model, variables, args, images, labels)
        client.barrier('trained')
        if client.is_chief:
            values = {name: client.pull(variable).wait() for name, variable in variables.items()}
            reached = network.accuracy(model, values, *idx.load(args.data, 't10k'))
            os.makedirs('outputs', exist_ok=True)
            numpy.savez('outputs/model.npz', **values)
            basin.Run.get_context().log('test_accuracy', reached)
            print(f'test accuracy {reached:.4f}', flush=True)
        client.finish()


if __name__ == '__main__':
    main()
