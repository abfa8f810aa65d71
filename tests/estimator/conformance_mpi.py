"""Jobs with distributed_backend: mpi: ranks under mpirun, on every target; and what only machines with a network can suffer."""

import json
import os
import re
import signal
import subprocess

from conformance_case import FINAL, STAY, STUBBORN, ConformanceCase, clusters, processes, ssh_hosts
import needs  # its folder is on the path since conformance_targets

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # where Debian's mpirun and python3 are, whatever else this machine has
# Sums over all ranks until told to stop; then what it came to.
SUMS = """
import os
import sys
import time

import numpy
from mpi4py import MPI

world, flags = MPI.COMM_WORLD, os.environ["FLAGS"]
assert (world.rank, world.size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
values = numpy.empty(50_000, "f")
rounds = 0
while True:
    values[:] = world.rank + 1
    world.Allreduce(MPI.IN_PLACE, values)
    assert (values == world.size * (world.size + 1) / 2).all()
    rounds += 1
    if rounds == 3:
        open(f"{flags}/up-worker-{world.rank}", "w").close()
    if os.path.exists(f"{flags}/abort-{world.rank}"):
        world.Abort(5)
    if world.allreduce(os.path.exists(f"{flags}/enough"), MPI.LOR):
        break
    time.sleep(0.02)
print(f"rank {world.rank} of {world.size} is done", flush=True)
"""


def missing():
    try:
        version = subprocess.run(["/usr/bin/mpirun", "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    except FileNotFoundError:
        version = ""
    if "(Open MPI) 4." not in version:
        return "Open MPI 4 is not there (Debian: openmpi-bin)"
    if subprocess.run(["/usr/bin/python3", "-c", "import mpi4py.MPI, numpy"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return "mpi4py and numpy are not there (Debian: python3-mpi4py python3-numpy)"
    return ""


def shapes_of(path):
    """{name: shape} of a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: one["shape"] for name, one in header.items() if name != "__metadata__"}


class MpiWork(ConformanceCase):
    """Two ranks a node."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if missing():
            needs.skip(missing())

    def mpi(self, script="", *flags, variables=None, **fields):
        """Submits a job whose ranks run the script, or SUMS."""
        if not script:
            self.write("sums.py", SUMS)
            fields.setdefault("entry_script", "sums.py")
        return self.submit(script, *flags, **{"distributed_backend": "mpi", "process_count_per_node": 2, "parameter_server_count": None,
                                              "worker_count": None, "cancel_grace_seconds": 1,
                                              "environment_variables": {"FLAGS": self.flags, "PATH": PATH, **(variables or {})}, **fields})

    def ranks(self):
        return [f"worker-{rank}" for rank in range(2 * len(self.target.nodes))]

    def running(self, script="", *flags, **fields):
        """(the submitter, the record of the running run)"""
        submitted = self.mpi(script, *flags, **fields)
        return submitted, self.wait_until_up(submitted if "--detach" not in flags else None, self.ranks())

    def launcher_of_last_node(self, record):
        """mpirun, or where there are several nodes its daemon on the last."""
        last = len(self.target.nodes) - 1
        return f"orted-{last}" if last else "mpirun-0"

    def test_ranks_have_their_places_environment_and_trees(self):
        self.write("data.txt", "as submitted\n")
        record = self.ends(self.mpi("""
mkdir -p outputs logs
echo "$RANK $WORLD_SIZE $LOCAL_RANK $BASIN_RANK $BASIN_WORLD_SIZE $BASIN_LOCAL_RANK $OMPI_COMM_WORLD_RANK $AZ_BATCHAI_TASK_INDEX"
cat data.txt; echo "changed by $me" >data.txt
echo "TF_CONFIG: ${TF_CONFIG-none}; GPUs: ${CUDA_VISIBLE_DEVICES-as they are}; arguments: $*"
echo "$me" >outputs/model.txt; echo "$me" >outputs/only-$me.txt; echo "$me" >logs/note.txt
basin metric log loss 0.$((RANK + 1)) --step $RANK
""", script_params={"--rate": 0.1, "--fast": ""}))
        nodes, size = self.target.nodes, len(self.ranks())
        tasks = [(task["role"], task["index"], task["host"], task.get("exit_code")) for task in record["tasks"]]
        self.assertEqual(tasks[:size], [("worker", rank, nodes[rank // 2], 0) for rank in range(size)])
        self.assertEqual(tasks[size:], [("orted" if node else "mpirun", node, name, 0) for node, name in enumerate(nodes)])
        for rank, me in enumerate(self.ranks()):
            self.assertEqual(self.read("logs", f"{me}.txt").splitlines(), [
                f"{rank} {size} {rank % 2} {rank} {size} {rank % 2} {rank} {rank}", "as submitted",
                "TF_CONFIG: none; GPUs: as they are; arguments: --rate 0.1 --fast"])
            self.assertEqual(self.read("outputs", f"only-{me}.txt"), f"{me}\n")
        # What rank 0 writes is the run's; the others' of the same name lie beside it.
        self.assertEqual(self.read("outputs/model.txt"), "worker-0\n")
        self.assertEqual(self.read("outputs/by-task/worker-1/model.txt"), "worker-1\n")
        self.assertEqual(self.read("logs/note.txt"), "worker-0\n")
        points = [json.loads(line) for line in self.read("metrics.jsonl").splitlines()]
        self.assertEqual(sorted((point["task"], point["step"]) for point in points), [(f"worker/{rank}", rank) for rank in range(size)])
        self.nothing_left()

    def test_ranks_compute_together(self):
        self.raise_flag("enough")
        record = self.ends(self.mpi(distributed_backend=None, process_count_per_node=None,
                                    distributed_training={"MpiConfiguration": {"process_count_per_node": 2}}))
        size = len(self.ranks())
        for rank, me in enumerate(self.ranks()):
            self.assertIn(f"rank {rank} of {size} is done\n", self.read("logs", f"{me}.txt"))
        self.assertEqual({task.get("exit_code") for task in record["tasks"]}, {0})
        self.nothing_left()

    def test_failing_rank_is_named_with_its_host_and_the_others_end_in_order(self):
        *others, last = self.ranks()
        submitted = self.mpi(f"""
mkdir -p outputs; echo "$me" >"outputs/$me.txt"
if [ $me = {last} ]; then for one in {' '.join(others)}; do until_flag up-$one; done; for i in $(seq 30); do echo "line $i"; done; exit 3; fi
""" + STAY, cancel_grace_seconds=60)
        record = self.ends(submitted, 1, "Failed")
        self.assertEqual(record["reason"], f"{last.replace('-', ' ')} exited with code 3 on {self.target.nodes[-1]}")
        self.assertIn("line 30", submitted.text("err"))
        for me in self.ranks():
            self.assertEqual(self.read(f"outputs/{me}.txt"), f"{me}\n")
        for me in others:
            self.assertIn(f"{me} says goodbye", self.read("logs", f"{me}.txt"))
        self.nothing_left()

    def test_killed_daemon_of_mpirun_is_named_though_its_ranks_end_too(self):
        submitted, record = self.running()
        name = self.launcher_of_last_node(record)
        os.kill(self.pid_of(record, name), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertRegex(record["reason"], f"^{name.replace('-', ' ').replace('mpirun 0', 'mpirun')} was ended by SIGKILL on ")
        self.nothing_left()


class OneWord(MpiWork):
    """Where basin-worker finds libbasin_mpi.so, which no bundle holds."""

    def test_one_job_of_a_built_in_program_runs_with_either_backend(self):
        if not os.path.exists(os.path.join(os.environ["BASIN_BINARY_DIR"], "lib", "libbasin_mpi.so")):
            needs.skip("libbasin_mpi.so is not built (Debian: libopenmpi-dev)")
        data = os.path.join(self.target.shared, "images")
        os.makedirs(self.target.seen(data), exist_ok=True)
        clusters.write_data(self.target.seen(data))
        jobs, records = [], {}
        for backend in ("ps", "mpi"):
            path = self.job(entry_script="basin:mlp", source_directory=None, script_params={"--hidden": "32", "--epochs": 4, "--batch-size": 16},
                            inputs=[{"name": "data", "path": data}], parameter_server_count=1, evaluator_count=1, distributed_backend=backend,
                            environment_variables={"PATH": PATH}, training={"rule": {"name": "adam", "learning_rate": 0.01}})
            with open(self.target.seen(path), encoding="utf-8") as file:
                jobs.append(file.read())
            records[backend] = self.ends(self.basin("submit", path, "--json", *self.target.submit_flags))
        self.assertEqual(jobs[0].replace('"distributed_backend": "ps"', '"distributed_backend": "mpi"'), jobs[1])
        roles = {backend: [task["role"] for task in record["tasks"]] for backend, record in records.items()}
        self.assertEqual(roles["ps"], ["ps", "worker", "worker", "evaluator"])
        self.assertEqual(roles["mpi"], ["worker", "worker", "mpirun"] + ["orted"] * (len(self.target.nodes) - 1))
        models = []
        for record in records.values():
            folder = self.target.seen(record["folder"])
            # Ten classes that are easy to tell apart: both have learnt them. (An evaluator may come too late to so short a run.)
            code, out, err = processes.run([processes.binary("basin-worker"), "--evaluate", os.path.join(folder, "outputs", "model.safetensors"),
                                            "--data", self.target.seen(data), "--hidden", "32"])
            self.assertEqual(code, 0, err)
            self.assertGreater(float(re.search(r"(?m)^test accuracy (.*)$", out).group(1)), 0.8)
            with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
                self.assertIn("loss", {json.loads(line)["name"] for line in file})
            models.append(shapes_of(os.path.join(folder, "outputs", "model.safetensors")))
        self.assertTrue(models[0])
        self.assertEqual(models[0], models[1])
        self.nothing_left()


class Mpi(MpiWork):
    """And what a target has little to do with."""

    def test_rank_that_refuses_its_input_gives_exit_code_2(self):
        self.ends(self.mpi("if [ $RANK = 1 ]; then exit 2; fi; sleep 100"), 2, "Failed")
        self.nothing_left()

    def test_abort_is_told_of_the_rank_that_asked_for_it(self):
        submitted, _ = self.running()
        self.raise_flag("abort-1")
        record = self.ends(submitted, 1, "Failed")
        self.assertEqual(record["reason"], f"worker 1 exited with code 5 on {self.target.nodes[0]}")
        self.nothing_left()

    def test_killed_rank_fails_the_run_and_is_named_with_its_host(self):
        submitted, record = self.running()
        last = self.ranks()[-1]
        os.kill(self.pid_of(record, last), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertEqual(record["reason"], f"{last.replace('-', ' ')} was ended by SIGKILL on {self.target.nodes[-1]}")
        self.nothing_left()

    def test_killed_mpirun_fails_the_run(self):
        submitted, record = self.running(STUBBORN)
        os.kill(self.pid_of(record, "mpirun-0"), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertEqual(record["reason"], f"mpirun was ended by SIGKILL on {self.target.nodes[0]}")
        self.nothing_left()

    def test_stand_in_of_a_rank_that_is_killed_fails_the_run(self):
        submitted, record = self.running()
        own = self.pid_of(record, "mpirun-0")
        stand_ins = [pid for pid, text in self.target.pids().items() if "mpi-rank" in text and ssh_hosts.parent_of(pid) == own]
        self.assertTrue([pid for pid in stand_ins if pid != own])
        os.kill(next(pid for pid in stand_ins if pid != own), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertIn("mpirun", record["reason"])
        self.nothing_left()

    def test_killed_agent_fails_the_run_and_names_its_node(self):
        submitted, record = self.running(STUBBORN)
        last = self.ranks()[-1]
        os.kill(ssh_hosts.parent_of(ssh_hosts.parent_of(self.pid_of(record, last))), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertIn(self.target.nodes[-1], record["reason"])
        self.nothing_left(folders=False)

    def test_killed_submitter_leaves_no_process(self):
        submitted, _ = self.running(STUBBORN)
        submitted.kill()
        self.nothing_left(folders=False)

    def test_signal_to_the_submitter_cancels(self):
        submitted, _ = self.running(STAY, cancel_grace_seconds=60)
        submitted.send(signal.SIGTERM)
        self.ends(submitted, 1, "Canceled")
        for me in self.ranks():
            self.assertIn(f"{me} says goodbye", self.read("logs", f"{me}.txt"))
        self.nothing_left()

    def test_time_limit_cancels(self):
        record = self.ends(self.mpi(max_run_duration_seconds=2), 1, "Canceled")
        self.assertIn("max_run_duration_seconds", record["reason"])
        self.nothing_left()

    def test_detached_run_goes_on_with_a_new_supervisor(self):
        detached = self.mpi("", "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))["run_id"]
        self.wait_until_up(tasks=self.ranks())
        os.kill(self.supervisor_of(run), signal.SIGKILL)
        attached = self.basin("attach", run, "--json")
        self.wait_for_state("Running")
        self.raise_flag("enough")
        self.ends(attached)
        for me in self.ranks():
            self.assertIn("is done\n", self.read("logs", f"{me}.txt"))
        self.nothing_left()

    def tool(self, name, text):
        """A program that comes first on the ranks' PATH."""
        path = self.target.seen(os.path.join(self.target.shared, "tools", name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.addCleanup(os.remove, path)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(path, 0o755)
        return {"PATH": os.path.join(self.target.shared, "tools") + ":" + PATH}

    def test_another_mpi_is_refused_by_what_was_found(self):
        variables = self.tool("mpirun", "#!/bin/sh\necho 'HYDRA build details:'\necho '    Version:      4.0.2'\n")
        submitted = self.mpi("echo started", variables=variables)
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertRegex(submitted.text("err"), r'mpirun is not Open MPI.*"HYDRA build details: Version: +4\.0\.2".*openmpi-bin')
        self.nothing_left()

    def test_missing_mpirun_is_named_with_its_node(self):
        submitted = self.mpi("echo started", variables={"PATH": "/nowhere"}, setup=None)
        self.assertEqual(submitted.wait(), 1, submitted.text())
        nodes = "|".join(self.target.nodes)  # whichever answers first
        self.assertRegex(submitted.text("err"), f"node ({nodes}): mpirun is not there: .*openmpi-bin")
        self.nothing_left()

    def test_daemon_that_cannot_start_is_said(self):
        if len(self.target.nodes) == 1:
            self.skipTest("one node has no daemon but mpirun")
        submitted = self.mpi("echo started", variables=self.tool("orted", "#!/bin/sh\necho 'no daemon here'\nexit 9\n"))
        record = self.ends(submitted, 1, "Failed")
        self.assertEqual(record["reason"], f"orted 1 exited with code 9 on {self.target.nodes[1]}")
        self.assertIn("no daemon here", submitted.text("err"))
        self.nothing_left()


class MpiOverSsh(Mpi):
    """h0 and h1 with a network between."""

    def test_nodes_need_no_ssh_between_them(self):
        code, _, err = self.target.hosts[0].run(["ssh", "-o", "BatchMode=yes", "h1", "true"])
        self.assertNotEqual(code, 0, err)
        self.raise_flag("enough")
        before = self.target.hosts[1].bytes_sent_and_received()
        record = self.ends(self.mpi())
        self.assertEqual([task["host"] for task in record["tasks"][:4]], ["h0", "h0", "h1", "h1"])
        # The sums of 50,000 float32 go over h1's cable, at least once.
        self.assertGreater(self.target.hosts[1].bytes_sent_and_received()[0] - before[0], 150_000)

    def test_what_ranks_share_in_memory_is_gone_with_the_run(self):
        submitted, record = self.running()
        left = lambda: [name for host in self.target.hosts for name in os.listdir(f"/proc/{host.pid}/root/dev/shm") if "mpi" in name]
        self.assertEqual(len(left()), 2)
        os.kill(self.pid_of(record, "worker-3"), signal.SIGKILL)
        self.ends(submitted, 1, "Failed")
        # Each agent takes its own away after its last word.
        processes.wait_until(lambda: not left(), "what ranks share is gone")

    def test_node_that_is_lost_fails_the_run_and_is_named(self):
        submitted, _ = self.running()
        self.target.hosts[1].link_down()
        record = self.ends(submitted, 1, "Failed")
        self.assertIn("h1", record["reason"])
        # The lost host ends what it has by itself. (Its sshd waits for TCP to give up.)
        alive = lambda: [text for text in self.target.hosts[1].pids().values() if not text.startswith("sshd")]
        processes.wait_until(lambda: not alive(), "h1 has ended its ranks")
        self.target.hosts[1].link_up()
        self.nothing_left(folders=False)

    def test_short_drop_of_the_link_does_not_hurt_a_detached_run(self):
        detached = self.mpi("", "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        self.wait_until_up(tasks=self.ranks())
        self.target.hosts[1].link_down()
        self.wait_for_state("NotResponding")
        self.target.hosts[1].link_up()
        self.wait_for_state("Running")
        self.raise_flag("enough")
        self.assertEqual(self.wait_for_state(*FINAL)["state"], "Completed")
        for me in self.ranks():
            self.assertIn("is done\n", self.read("logs", f"{me}.txt"))
        self.nothing_left()
