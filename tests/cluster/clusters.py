"""Clusters on loopback, their TF_CONFIG, and starting their tasks, on top of processes.py. Standard library only."""

import json
import os
import random
import signal
import socket
import struct
import tempfile
import unittest

import processes


def example(name):
    return os.path.join(os.environ["BASIN_BINARY_DIR"], "examples", name)


def count_pushes():
    return processes.binary("test_count_pushes")


_port_names = []  # held until this program ends


def free_port_of_all(hosts):
    """One port that is free on each of the loopback addresses, below those that outgoing connections take. Its name is
    held as `basin submit` holds those of its ports, so that no other test, and no run of one, is given the port too."""
    while True:
        port = random.randrange(10000, 32000)
        name = socket.socket(socket.AF_UNIX)
        sockets = [socket.socket() for _ in hosts]
        try:
            name.bind(f"\0basin-port-{port}")
            for one, host in zip(sockets, hosts):
                one.bind((host, port))
            _port_names.append(name)
            return port
        except OSError:
            name.close()
        finally:
            for one in sockets:
                one.close()


def addresses(count):
    """Addresses of 127.0.0.1 whose ports are free, and given to nobody else."""
    ports = set()
    while len(ports) < count:
        ports.add(free_port_of_all(["127.0.0.1"]))
    return [f"127.0.0.1:{port}" for port in sorted(ports)]


class Layout:
    """Who is where. `of` gives a task its TF_CONFIG."""

    def __init__(self, ps=1, workers=1, chief=None):
        found = addresses(ps + workers + (1 if chief else 0))
        self.ps = found[:ps]
        self.workers = found[ps:ps + workers]
        self.cluster = {"ps": self.ps, "worker": self.workers}
        if chief:
            self.cluster[chief] = found[ps + workers:]

    def of(self, role, index=0, cluster=None):
        return json.dumps({"cluster": cluster or self.cluster, "task": {"type": role, "index": index}})


def write_idx(path, shape, data):
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(data))


def write_data(folder, train=512, test=128):
    """Images of 8 x 8 in 10 classes, easy to tell apart: each class lights six pixels of its own; the rest is noise."""
    draw = random.Random(5)
    for part, count in (("train", train), ("t10k", test)):
        images, labels = bytearray(), bytearray()
        for i in range(count):
            label = i % 10
            image = [draw.randrange(60) for _ in range(64)]
            for pixel in range(6):
                image[label * 6 + pixel] = 160 + draw.randrange(90)
            images += bytes(image)
            labels.append(label)
        write_idx(os.path.join(folder, f"{part}-images-idx3-ubyte"), (count, 8, 8), images)
        write_idx(os.path.join(folder, f"{part}-labels-idx1-ubyte"), (count,), labels)


class ClusterCase(unittest.TestCase):
    """A test with a folder of its own, whose processes are ended with it and leave nothing behind."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.environment, self.mark = processes.marked_environment(HOME=self.folder)
        self.addCleanup(self.end_all)

    def end_all(self):
        for pid in processes.marked_pids(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "no process of the test is left")

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def start(self, argv, tf_config=None, pass_fds=(), **environment):
        if tf_config:
            environment["TF_CONFIG"] = tf_config
        process = processes.Process(argv, env=dict(self.environment, **environment), cwd=self.folder, pass_fds=pass_fds)
        self.addCleanup(process.__exit__)
        return process

    def start_ps(self, layout, index=0, *flags, tf_config=None, wait=True, lanes=2, **environment):
        argv = [processes.binary("basin-ps"), "--lanes", lanes, "--finish-grace", "20", *flags]
        ps = self.start(argv, tf_config or layout.of("ps", index), **environment)
        if wait:
            ps.wait_for_line("listening on")
        return ps

    def start_all_ps(self, layout, *flags, **more):
        return [self.start_ps(layout, index, *flags, **more) for index in range(len(layout.ps))]

    def start_worker(self, layout, index=0, *flags, role="worker", tf_config=None, **environment):
        """basin-worker on the little data set, with softmax unless the flags say otherwise. tf_config "": none."""
        data = self.path("data")
        if not os.path.isdir(data):
            os.mkdir(data)
            write_data(data)
        argv = [processes.binary("basin-worker"), "--data", data, *flags]
        for flag, value in (("--program", "softmax"), ("--batch-size", "16"), ("--piece-batches", "4"), ("--learning-rate", "0.05")):
            if flag not in flags:
                argv += [flag, value]
        return self.start(argv, layout.of(role, index) if tf_config is None else tf_config, **environment)

    def start_counter(self, layout, index=0, *flags, role="worker", tf_config=None, **environment):
        return self.start([count_pushes(), *flags], tf_config or layout.of(role, index), **environment)

    def start_evaluator(self, layout, *flags, **environment):
        """Returns once it is known to every ps: a short training must not be over before it has come."""
        evaluator = self.start_worker(layout, 0, *flags, role="evaluator", **environment)
        evaluator.wait_for_line(": evaluating ")
        return evaluator

    def start_workers(self, count, start):
        """Workers 0 to count - 1, each by start(index). The chief comes last, once every ps knows the others: a short
        training, which ends with the chief, must not be over before they have come."""
        others = [start(index) for index in range(1, count)]
        for other in others:
            other.wait_for_line(": training ")
        return [start(0), *others]

    def hold(self):
        """Path of a file that test_count_pushes waits for half-way; `release` makes it."""
        return self.path("go-on")

    def release(self):
        open(self.hold(), "w").close()

    def stats(self, layout, *flags):
        code, out, err = processes.run([processes.binary("basin"), "top", "--json", "--ps", layout.ps[0], *flags], env=self.environment)
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def client(self, layout, role, index):
        return next((one for one in self.stats(layout)["clients"] if (one["role"], one["index"]) == (role, index)), None)

    def ends(self, process, code=0):
        self.assertEqual(process.wait(), code, f"{' '.join(process.argv)}\n{process.text()}")
        return process.text()

    def all_end(self, tasks, code=0):
        """Waits until every one of them has ended with the exit code. The first other one fails the test, with all they said."""
        said = lambda: "\n---\n".join(f"{' '.join(task.argv)}\n{task.text()[-4000:]}" for task in tasks)
        ended = lambda: [task.wait() for task in tasks if not task.running()]
        try:
            codes = processes.wait_until(lambda: (lambda got: got if len(got) == len(tasks) or set(got) - {code} else None)(ended()), "all tasks end")
        except AssertionError as error:
            self.fail(f"{error}\n{said()}")
        self.assertEqual(codes, [code] * len(tasks), said())
