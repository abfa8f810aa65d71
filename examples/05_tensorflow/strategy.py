"""A TensorFlow 2 job with tf.distribute.ParameterServerStrategy: ps and workers serve, the chief coordinates.

Nothing here knows of Basin: who is who stands in TF_CONFIG.
"""

import argparse
import os
import sys

import numpy
import tensorflow as tf

import fashion_mnist


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='/usr/share/datasets/fashion-mnist')
    parser.add_argument('--hidden', type=int, default=128)
    parser.add_argument('--epochs', type=int, default=6)
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--seed', type=int, default=1, help='of the start values')
    parser.add_argument('--checkpoint-dir', help='a folder that chief and ps see under one path; an earlier run is continued')
    return parser.parse_args()


class Network(tf.Module):
    """One hidden layer."""

    def __init__(self, hidden, seed):
        super().__init__()

        def glorot(rows, columns, number):
            limit = (6 / (rows + columns)) ** 0.5
            return tf.random.stateless_uniform([rows, columns], [seed, number], -limit, limit)

        self.w1 = tf.Variable(glorot(fashion_mnist.PIXELS, hidden, 1))
        self.b1 = tf.Variable(tf.zeros([hidden]))
        self.w2 = tf.Variable(glorot(hidden, fashion_mnist.CLASSES, 2))
        self.b2 = tf.Variable(tf.zeros([fashion_mnist.CLASSES]))

    def __call__(self, pixels):
        return tf.nn.relu(pixels @ self.w1 + self.b1) @ self.w2 + self.b2


def train(strategy, args):
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        network = Network(args.hidden, args.seed)
        optimizer = tf.compat.v1.train.AdamOptimizer(args.learning_rate)
        epoch = tf.Variable(0, dtype=tf.int64)
    saved = None
    if args.checkpoint_dir:
        checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer, epoch=epoch)
        saved = tf.train.CheckpointManager(checkpoint, args.checkpoint_dir, max_to_keep=3)
        checkpoint.restore(saved.latest_checkpoint)

    @tf.function
    def step(iterator):
        def on_a_worker(pixels, labels):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(pixels)))
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply_gradients(zip(gradients, network.trainable_variables))
            return loss

        return strategy.run(on_a_worker, args=next(iterator))

    # The function runs on each worker, which reads the files there.
    iterator = iter(coordinator.create_per_worker_dataset(lambda: fashion_mnist.batches(args.data, args.batch_size)))
    for number in range(int(epoch.numpy()), args.epochs):
        losses = [coordinator.schedule(step, args=(iterator,)) for _ in range(fashion_mnist.TRAIN // args.batch_size)]
        coordinator.join()
        epoch.assign_add(1)
        print(f'epoch {number + 1}: loss {numpy.mean(coordinator.fetch(losses[-50:])):.4f}', flush=True)
        if saved:
            saved.save()
    return network


def accuracy(network, folder):
    right = 0
    for pixels, labels in fashion_mnist.examples(folder, 't10k').batch(1000):
        right += int(tf.math.count_nonzero(tf.equal(tf.argmax(network(pixels), axis=1), labels)))
    return right / fashion_mnist.TEST


def main():
    args = arguments()
    if not os.environ.get('TF_CONFIG'):
        sys.exit('strategy.py: TF_CONFIG is not set: start it by basin submit, or give each task its own')
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type in ('ps', 'worker'):
        server = tf.distribute.Server(resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id,
                                      protocol=resolver.rpc_layer or 'grpc')
        server.join()  # never returns
    network = train(tf.distribute.ParameterServerStrategy(resolver), args)
    os.makedirs('outputs', exist_ok=True)
    numpy.savez('outputs/model.npz', w1=network.w1, b1=network.b1, w2=network.w2, b2=network.b2)
    print(f'test accuracy {accuracy(network, args.data):.4f}', flush=True)


if __name__ == '__main__':
    main()
