"""The distributed sample of the Azure page on two hosts, by ssh and under Slurm: mpi, two nodes, an image of one's own, packages. Each
rank runs in a container of its host's own podman; mpirun stays outside. As root; otherwise skipped."""

import json
import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import container_jobs_test  # noqa: E402
import images  # noqa: E402
import slurm_hosts  # noqa: E402
import ssh_hosts  # noqa: E402

processes = images.processes
BASIN = processes.binary("basin")
IMAGE = "localhost/keras:1"
MPI4PY = "/usr/lib/python3/dist-packages/mpi4py"
OPEN_MPI = "/usr/lib/x86_64-linux-gnu/openmpi"
# A host has no cgroups of its own to see until they are mounted there; podman wants them.
CGROUPS = """
mount -t tmpfs none /sys/fs/cgroup
for one in pids devices freezer memory cpu; do
  mkdir /sys/fs/cgroup/$one && mount -t cgroup -o $one none /sys/fs/cgroup/$one || rmdir /sys/fs/cgroup/$one
done
mount | grep -q 'type cgroup ' || { umount /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; }
"""
TRAIN = """
import os
import basin_probe
from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
total = world.allreduce(rank + 1)
big = world.allreduce(bytearray(1 << 20), op=lambda a, b: a)
names = world.allgather((MPI.Get_processor_name(), basin_probe.WHERE, os.readlink("/proc/self/ns/mnt")))
print(f"rank {rank} of {size} on {names[rank][0]}: sum {total}, image {names[rank][1]}", flush=True)
os.makedirs("outputs", exist_ok=True)
if rank == 0:
    with open("outputs/model.txt", "w") as file:
        file.write(f"{total} {len({name for name, _, _ in names})} {len({mount for _, _, mount in names})} {len(big)}")
"""


class OnHosts(unittest.TestCase):
    """Two hosts with an image that has mpi4py, and the submitter."""

    home = "/root"
    target = {}

    @classmethod
    def make_hosts(cls):
        raise NotImplementedError

    @classmethod
    def setUpClass(cls):
        images.Podman.skip_if_missing()
        for path in (MPI4PY, OPEN_MPI):
            if not os.path.exists(path):
                images.needs.skip(f"{path} is not there (Debian: python3-mpi4py openmpi-bin)")
        cls.hosts = cls.make_hosts()
        cls.addClassCleanup(cls.hosts.stop)
        root = os.path.join(cls.hosts.shared, "image")
        os.makedirs(root)
        plugins, folders = images.mpi()
        images.lay_out(root, [*images.SHELL, images.PYTHON, *plugins], {"/etc/image": "keras\n"})
        for folder in folders:
            images.copy_tree(folder, root)
        cls.engine = ["--root", "/var/lib/images", "--runroot", "/run/images", *images.Podman.storage_driver(), *images.ENGINE_OPTIONS]
        for host in cls.hosts:
            for words in (["sh", "-c", CGROUPS], ["sh", "-c", f"tar -C /shared/image -c . | podman {' '.join(cls.engine)} import -q - {IMAGE}"]):
                code, out, err = host.run(words)
                if code != 0:
                    raise AssertionError(f"{host.name}: {words} ended with {code}: {out}{err}")

    def setUp(self):
        self.submitter = self.hosts.submitter
        self.write(".config/basin/targets.yaml", json.dumps({"lab": {
            **self.target, "container_engine": "podman", "container_engine_options": self.engine, "container_options": images.OPTIONS}}))

    def write(self, path, text):
        path = self.seen(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def seen(self, path):
        """One of the home's, as the test sees it."""
        return self.submitter.path(self.home, path)

    def submit(self, script, **fields):
        self.write("my-keras-proj/train.py", script)
        self.write("job.json", json.dumps({
            "experiment": "keras", "compute_target": "lab", "source_directory": "./my-keras-proj", "entry_script": "train.py", "node_count": 2,
            "distributed_training": {"MpiConfiguration": {"process_count_per_node": 1}}, "custom_docker_image": IMAGE, **fields}))
        return self.submitter.run([BASIN, "submit", "job.json", "--json"], cwd=self.home, **self.hosts_variables())

    def hosts_variables(self):
        return {}

    def read(self, *parts):
        runs = self.seen(".local/state/basin/runs/keras")
        with open(os.path.join(runs, max(os.listdir(runs)), *parts), encoding="utf-8") as file:
            return file.read()

    def nothing_left(self):
        for host in self.hosts:
            host.wait_until_idle()
            code, out, err = host.run(["podman", *self.engine, "ps", "--all", "--quiet"])
            self.assertEqual((code, out), (0, ""), err)

    def test_the_pages_distributed_sample_runs_with_packages_in_an_image(self):
        wheels = os.path.join(self.hosts.shared, "wheels")
        os.makedirs(wheels)
        self.addCleanup(shutil.rmtree, wheels)
        container_jobs_test.wheel(wheels, "basin_probe", "WHERE = open('/etc/image').read().strip()\n")
        code, out, err = self.submit(TRAIN, pip_packages=["/shared/wheels/basin_probe-1.0-py3-none-any.whl"])
        self.assertEqual(code, 0, err)
        # Two hosts, and a mount namespace (a container) a rank.
        self.assertEqual(self.read("outputs/model.txt"), "3 2 2 1048576")
        for rank in (0, 1):
            self.assertIn(f"rank {rank} of 2 on h{rank}: sum 3, image keras", self.read(f"logs/worker-{rank}.txt"))
            self.assertIn(f"in {self.home}/.cache/basin/environments/pip-", self.read(f"logs/environment-{rank}.txt"))
        self.nothing_left()

    def test_a_failing_rank_is_named_with_its_host_and_no_container_stays(self):
        code, _, err = self.submit("""
import os, sys, time
from mpi4py import MPI
MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.Get_rank() == 1: os._exit(3)  # sys.exit would wait for the others in MPI_Finalize
time.sleep(3600)
""")
        self.assertEqual(code, 1, err)
        self.assertIn("worker 1 exited with code 3 on h1", err)
        self.nothing_left()


class ContainersOnHosts(OnHosts):
    target = {"kind": "ssh", "nodes": ["h0", "h1"]}

    @classmethod
    def make_hosts(cls):
        ssh_hosts.skip_if_missing()
        return ssh_hosts.Hosts(2)


class ContainersUnderSlurm(OnHosts):
    """All hosts share their HOME, as clusters have it; each has its own image."""

    home = slurm_hosts.HOME
    target = {"kind": "slurm", "slurm": {"partition": "main"}}

    @classmethod
    def make_hosts(cls):
        return slurm_hosts.SlurmHosts(2)

    def hosts_variables(self):
        return self.hosts.environment

    def seen(self, path):
        return os.path.join(self.hosts.shared, "home", path)


def load_tests(loader, tests, pattern):
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, (ContainersOnHosts, ContainersUnderSlurm)))


if __name__ == "__main__":
    unittest.main()
