"""The whole job on TensorFlow's ParameterServerStrategy, written as its guide does: closures of one step or of several,
scheduled by a coordinator; variables placed in turn on the ps; evaluation between them.

usage: tensorflow_job.py ROLE INDEX CLUSTER [STEPS_A_CLOSURE TARGET LIMIT_S DATA]
ROLE: chief, worker or ps; CLUSTER: a JSON of addresses by role. The chief prints one JSON a line.

Keras 3 does not run under this strategy, so the model is written out. Adam is TensorFlow's own fused operation on the ps,
as Keras's legacy optimizer uses it.
"""

import gzip
import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCH, HIDDEN, RATE, BETA1, BETA2, EPSILON = 128, 256, 1e-3, 0.9, 0.999, 1e-7
STEPS_BETWEEN_LOOKS = 200


def idx(path, header):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8)[header:]


def load(folder, part):
    labels = idx(f"{folder}/{part}-labels-idx1-ubyte.gz", 8)
    return idx(f"{folder}/{part}-images-idx3-ubyte.gz", 16).reshape(len(labels), 784), labels


def serve(cluster, role, index):
    tf.distribute.Server(cluster, job_name=role, task_index=index, protocol="grpc", start=True).join()


class Job:
    def __init__(self, cluster, data):
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster), task_type="chief", task_id=0, rpc_layer="grpc")
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        with self.strategy.scope():
            glorot = tf.initializers.GlorotUniform(seed=1)
            self.variables = [tf.Variable(value) for value in (
                glorot([784, HIDDEN]), tf.zeros([HIDDEN]), glorot([HIDDEN, 10]), tf.zeros([10]))]
            self.slots = []
            for variable in self.variables:
                with self.strategy.extended.colocate_vars_with(variable):
                    self.slots.append((tf.Variable(tf.zeros(variable.shape)), tf.Variable(tf.zeros(variable.shape))))
            self.step = tf.Variable(0, dtype=tf.int64)
        train, test = load(data, "train"), load(data, "t10k")
        self.test = tf.constant(test[0], tf.float32) / 255, tf.constant(test[1], tf.int64)

        def dataset():
            examples = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[1])).repeat().batch(BATCH, drop_remainder=True)
            return examples.map(lambda x, y: (tf.cast(x, tf.float32) / 255, tf.cast(y, tf.int32))).prefetch(4)
        self.iterator = iter(self.coordinator.create_per_worker_dataset(dataset))

    def logits(self, x, variables):
        w1, b1, w2, b2 = variables
        return tf.nn.relu(x @ w1 + b1) @ w2 + b2

    def one_step(self, iterator):
        x, y = next(iterator)
        with tf.GradientTape() as tape:
            logits = self.logits(x, self.variables)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        gradients = tape.gradient(loss, self.variables)
        t = tf.cast(self.step.assign_add(1, read_value=True), tf.float32)
        for variable, (m, v), gradient in zip(self.variables, self.slots, gradients):
            with tf.device(variable.device):
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle, m=m.handle, v=v.handle, beta1_power=tf.pow(BETA1, t), beta2_power=tf.pow(BETA2, t),
                    lr=RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, grad=gradient)

    def closure(self, steps):
        @tf.function
        def run(iterator):
            for _ in tf.range(steps):
                self.one_step(iterator)

        @tf.function
        def run_one(iterator):
            self.one_step(iterator)
        return run_one if steps == 1 else run

    def accuracy(self):
        x, y = self.test
        found = tf.argmax(self.logits(x, [v.read_value() for v in self.variables]), axis=1)
        return float(tf.reduce_mean(tf.cast(found == y, tf.float32)))


def main():
    role, index, cluster = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    if role != "chief":
        serve(cluster, role, index)
    steps, target, limit_s, data = int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6]), sys.argv[7]
    job = Job(cluster, data)
    closure = job.closure(steps)
    training_s, first = 0.0, None
    start = time.perf_counter()
    while True:
        begun = time.perf_counter()
        if first is None:
            # Tracing and the first step, apart from the steps that follow.
            job.coordinator.schedule(closure, args=(job.iterator,))
            job.coordinator.join()
            first = time.perf_counter() - begun
            print(json.dumps({"event": "first", "time": time.time()}), flush=True)
        for _ in range(STEPS_BETWEEN_LOOKS // steps):
            job.coordinator.schedule(closure, args=(job.iterator,))
        job.coordinator.join()
        training_s += time.perf_counter() - begun
        accuracy, done = job.accuracy(), int(job.step.read_value())
        print(json.dumps({"event": "look", "time": time.time(), "steps": done, "accuracy": accuracy, "training_s": training_s,
                          "first_s": first}), flush=True)
        if accuracy >= target or time.perf_counter() - start > limit_s:
            break
    # Its threads that watch the cluster outlive main otherwise.
    os._exit(0)


if __name__ == "__main__":
    main()
