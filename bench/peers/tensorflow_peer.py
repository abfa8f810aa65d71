"""TensorFlow's ParameterServerStrategy on the work of same_work.py.

usage: tensorflow_peer.py ROLE CLUSTER SECONDS     ROLE: chief, worker or ps; CLUSTER: a JSON of addresses by role

A push is assign_sub of a gradient that the worker has just made; the variable lives on the ps. The loop runs inside one
graph on the worker; one push a closure, as training loops schedule them, is measured too.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf  # noqa: E402

import same_work  # noqa: E402

WORKER, PS = "/job:worker/replica:0/task:0/device:CPU:0", "/job:ps/replica:0/task:0/device:CPU:0"


def serve(cluster, role):
    server = tf.distribute.Server(cluster, job_name=role, task_index=0, protocol="grpc", start=True)
    print("serving", flush=True)
    server.join()


class Peer:
    def __init__(self, cluster, seconds):
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster), task_type="chief", task_id=0, rpc_layer="grpc")
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self.seconds = seconds

    def variables(self, count, shape):
        with self.strategy.scope():
            return [tf.Variable(tf.zeros(shape)) for _ in range(count)]

    def on_worker(self, function, *arguments):
        return self.coordinator.schedule(function, args=arguments).fetch()

    def loop(self, body):
        """A function of n that runs body(i) n times inside one graph on the worker, and returns the sum of what it returned."""
        @tf.function
        def run(n):
            with tf.device(WORKER):
                return tf.while_loop(lambda i, total: i < n, lambda i, total: (i + 1, total + body(i)), (0, 0.0))[1]
        return lambda n: self.on_worker(run, tf.constant(n))

    def push(self, size, name=None):
        # Several variables a step, as a model has them; gradients differ, so that no two of them are sent as one.
        variables = self.variables(min(same_work.in_flight(size), 16), [size // 4])

        def body(i):
            for k, variable in enumerate(variables):
                with tf.device(WORKER):
                    gradient = tf.fill([size // 4], tf.cast(tf.minimum(i, 0) + k + 1, tf.float32))
                with tf.device(PS):
                    variable.assign_sub(gradient)
            return 0.0
        steps_s, steps = same_work.repeat_for(self.seconds, self.loop(body))
        checked = all(bool(tf.reduce_all(variable.read_value() == -float((k + 1) * steps))) for k, variable in enumerate(variables))
        pushes_s = steps_s * len(variables)
        if name:
            same_work.report(name, pushes_s, "pushes/s", checked)
        else:
            same_work.report(f"push/bytes:{size}", 1e-9 * pushes_s * size, "GB/s", checked)

    def push_a_closure(self):
        variable, = self.variables(1, [same_work.SMALL_BYTES // 4])

        @tf.function
        def step():
            with tf.device(WORKER):
                gradient = tf.ones([same_work.SMALL_BYTES // 4])
            variable.assign_sub(gradient)

        def some(n):
            for _ in range(n):
                self.coordinator.schedule(step)
            self.coordinator.join()
        pushes_s, pushes = same_work.repeat_for(self.seconds, some)
        same_work.report("push_small_single/floats:16", pushes_s, "pushes/s", bool(tf.reduce_all(variable == -float(pushes))))

    def pull(self, size):
        variables = self.variables(min(same_work.in_flight(size), 16), [size // 4])
        for variable in variables:
            variable.assign(tf.ones([size // 4]))

        def body(i):
            total = 0.0
            for variable in variables:
                with tf.device(PS):
                    values = variable.read_value()
                with tf.device(WORKER):
                    total += values[i % (size // 4)]
            return total
        seen = []
        run = self.loop(body)
        steps_s, _ = same_work.repeat_for(self.seconds, lambda n: seen.append((n * len(variables), float(run(n)))))
        checked = all(total == expected for expected, total in seen)
        same_work.report(f"pull/bytes:{size}", 1e-9 * steps_s * len(variables) * size, "GB/s", checked)

    def table(self):
        with self.strategy.scope():
            table = tf.Variable(tf.zeros([same_work.TABLE_ROWS, same_work.TABLE_DIM]))

        def keys(i):
            return (tf.range(same_work.TABLE_BATCH) + (i % 100) * same_work.TABLE_BATCH) * 71 % same_work.TABLE_ROWS

        def push(i):
            with tf.device(WORKER):
                rows = tf.fill([same_work.TABLE_BATCH, same_work.TABLE_DIM], tf.cast(tf.minimum(i, 0) + 1, tf.float32))
                at = keys(i)
            with tf.device(PS):
                table.scatter_sub(tf.IndexedSlices(rows, at))
            return 0.0

        def pull(i):
            with tf.device(WORKER):
                at = keys(i)
            with tf.device(PS):
                rows = table.sparse_read(at)
            with tf.device(WORKER):
                return rows[i % same_work.TABLE_BATCH, 0]
        steps_s, steps = same_work.repeat_for(self.seconds, self.loop(push))
        checked = float(tf.reduce_sum(tf.cast(table.read_value(), tf.float64))) == -float(steps * same_work.TABLE_BATCH * same_work.TABLE_DIM)
        same_work.report("table_push/rows:1000000/dim:16", steps_s * same_work.TABLE_BATCH, "rows/s", checked)
        steps_s, _ = same_work.repeat_for(self.seconds, self.loop(pull))
        same_work.report("table_pull/rows:1000000/dim:16", steps_s * same_work.TABLE_BATCH, "rows/s", False)


def main():
    role, cluster, seconds = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    if role != "chief":
        serve(cluster, role)
    peer = Peer(cluster, seconds)
    for size in same_work.PUSH_BYTES:
        peer.push(size)
    for size in same_work.PULL_BYTES:
        peer.pull(size)
    peer.push(same_work.SMALL_BYTES, "push_small/floats:16")
    peer.push_a_closure()
    peer.table()
    # Its threads that watch the cluster outlive main otherwise.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
