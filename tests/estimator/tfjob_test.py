"""examples/07_kubernetes/tfjob.yaml: its pods as processes, each with the TF_CONFIG that Kubeflow's training operator gives it.

The operator (v1.8, pkg/controller.v1/tensorflow) names a replica <job>-<type>-<index>.<namespace>.svc:2222; it sets TF_CONFIG in the
container "tensorflow" alone, and not at all where the job has one replica. With enableDynamicWorker the text is another one:
"sparseCluster", without an environment. Under successPolicy AllWorkers the job has succeeded once all workers have ended well
(UpdateJobStatus), and cleanPodPolicy Running then deletes the pods that run on: they get SIGTERM. Here each replica has an address of the loopback net of a
network namespace, and the names stand in an /etc/hosts of the test's own. Needs root.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import unittest

sys.path[:0] = [os.path.join(os.environ["BASIN_SOURCE_DIR"], *parts) for parts in (("tests", "cluster"), ("tests", "install"))]
import clusters  # noqa: E402
import needs  # noqa: E402
import processes  # noqa: E402
import virtual_environment  # noqa: E402

MANIFEST = processes.source("examples", "07_kubernetes", "tfjob.yaml")
PORT = 2222


def read_yaml(path):
    try:
        python = virtual_environment.python_with("PyYAML==6.0.3")
    except virtual_environment.NotThere as reason:
        needs.skip(str(reason))
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    return json.loads(subprocess.check_output([python, "-c", program, path], stdin=subprocess.DEVNULL))


def cluster_of(job):
    """genClusterSpec: each type in lower case."""
    name = lambda kind, index: f"{job['metadata']['name']}-{kind}-{index}.default.svc:{PORT}"
    return {kind.lower(): [name(kind.lower(), index) for index in range(spec["replicas"])]
            for kind, spec in job["spec"]["tfReplicaSpecs"].items()}


def tf_config(job, kind, index):
    """genTFConfigJSONStr, as Go's encoding/json writes it."""
    cluster, task = cluster_of(job), {"type": kind, "index": index}
    if job["spec"].get("enableDynamicWorker"):
        sparse = {"worker": {}, "ps": []}
        if kind == "ps":
            sparse["ps"] = [cluster["ps"][index]]
        elif kind == "worker":
            sparse = {"worker": {str(index): cluster["worker"][index]}, "ps": cluster["ps"]}
        return json.dumps({"sparseCluster": sparse, "task": task}, separators=(",", ":"))
    return json.dumps({"cluster": cluster, "task": task, "environment": "cloud"}, separators=(",", ":"))


@needs.needs(os.geteuid() == 0, "an /etc/hosts of one's own needs root")
class TfJob(clusters.ClusterCase):
    epochs = 100  # a few hundred images: as many as the others need to come

    def setUp(self):
        super().setUp()
        (self.job,) = read_yaml(MANIFEST)
        for folder in ("data", "outputs"):
            os.makedirs(self.path(folder))
        holder = subprocess.Popen(["unshare", "--net", "--fork", "--kill-child", "sh", "-c", "ip link set lo up && echo up && exec cat"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (holder.stdin.close(), holder.wait(processes.DEADLINE_S), holder.stdout.close()))
        self.assertEqual(holder.stdout.readline(), "up\n")
        with open(f"/proc/{holder.pid}/task/{holder.pid}/children", encoding="ascii") as file:
            self.network = file.read().split()[0]
        clusters.write_data(self.path("data"))

    def write_hosts(self):
        names = [address.rpartition(":")[0] for addresses in cluster_of(self.job).values() for address in addresses]
        network = int.from_bytes(os.urandom(2), "big")
        with open(self.path("hosts"), "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n")
            file.write("".join(f"127.{100 + network % 100}.{network // 256}.{number + 1} {name}\n" for number, name in enumerate(names)))

    def as_here(self, word):
        places = {"--epochs 3 ": f"--epochs {self.epochs} ", "/data": self.path("data"), "/outputs": self.path("outputs")}
        for place, ours in places.items():
            word = word.replace(place, ours)
        return word

    def workers(self):
        found = []
        for pid in processes.marked_pids(self.mark):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/cmdline", "rb") as file:
                found += [pid] if file.read().startswith(b"basin-worker") else []
        return found

    def start_pods(self, sets_tf_config=True):
        self.write_hosts()
        pods = {}
        for kind, spec in self.job["spec"]["tfReplicaSpecs"].items():
            for index in range(spec["replicas"]):
                (container,) = spec["template"]["spec"]["containers"]
                self.assertEqual(container["name"], "tensorflow")
                words = [self.as_here(word) for word in container["command"]]
                script = f"mount --bind {self.path('hosts')} /etc/hosts && exec \"$@\""
                argv = ["nsenter", "--target", self.network, "--net", "--", "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words]
                config = tf_config(self.job, kind.lower(), index) if sets_tf_config else None
                pods[f"{kind.lower()}-{index}"] = self.start(argv, config, PATH=f"{processes.binary('')}:{os.environ['PATH']}")
        return pods

    def operate(self, pods):
        """The operator's part: the job has succeeded, and what runs on is ended."""
        self.assertEqual((self.job["spec"]["successPolicy"], self.job["spec"]["runPolicy"]["cleanPodPolicy"]), ("AllWorkers", "Running"))
        self.all_end({name: pod for name, pod in pods.items() if name.startswith("worker-")})
        for pod in [pod for pod in pods.values() if pod.running()]:
            pod.send(signal.SIGTERM)
        for pod in pods.values():
            pod.wait()

    def result_is_there(self, pods):
        self.assertIn("as the chief", pods["worker-0"].text())
        self.assertTrue(os.path.exists(self.path("outputs", "model.safetensors")))
        told = [name for name, pod in pods.items() if "test accuracy" in pod.text("out")]
        self.assertEqual(told, ["worker-0"], pods["worker-0"].text())

    def all_end(self, pods):
        for name, pod in pods.items():
            self.assertEqual(pod.wait(), 0, f"{name}:\n{pod.text()}")

    def test_pods_of_the_example_train_together(self):
        pods = self.start_pods()
        self.operate(pods)
        self.result_is_there(pods)

    def test_dynamic_workers_train_together(self):
        self.job["spec"]["enableDynamicWorker"] = True
        pods = self.start_pods()
        self.operate(pods)
        self.result_is_there(pods)

    def test_pod_that_is_deleted_ends_its_worker(self):
        self.epochs = 1000000
        pods = self.start_pods()
        for name in ("worker-0", "worker-1"):
            pods[name].wait_for_line("training mlp")
        pods["worker-1"].send(signal.SIGTERM)
        self.assertNotEqual(pods["worker-1"].wait(), 0)
        processes.wait_until(lambda: len(self.workers()) == 1, "the worker in it has ended, and the other has not")

    def test_single_replica_is_told_nothing_and_trains_alone(self):
        self.job["spec"]["tfReplicaSpecs"] = {"Worker": {**self.job["spec"]["tfReplicaSpecs"]["Worker"], "replicas": 1}}
        pods = self.start_pods(sets_tf_config=False)
        self.all_end(pods)
        self.assertIn("training alone", pods["worker-0"].text())
        self.assertIn("test accuracy", pods["worker-0"].text("out"))


if __name__ == "__main__":
    unittest.main()
