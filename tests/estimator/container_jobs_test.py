"""Jobs whose scripts run in containers, by podman, on an image that the test makes. As root; otherwise skipped."""

import contextlib
import glob
import json
import os
import shutil
import signal
import sys
import tempfile
import unittest
import zipfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import images  # noqa: E402

processes = images.processes
BASIN = processes.binary("basin")
IMAGE = "localhost/basin-test:1"
OTHER = "localhost/basin-test:2"
STAY = """
trap 'echo "goodbye of $BASIN_TASK_INDEX"; exit 0' TERM
( setsid bash -c 'trap "" TERM HUP; while :; do sleep 0.05; done' >/dev/null 2>&1 & )
: >outputs/up
while :; do sleep 0.05; done
"""


def wheel(folder, name, text):
    """A package of one module, as pip installs it without any index."""
    info = f"{name}-1.0.dist-info"
    path = os.path.join(folder, f"{name}-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", text)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


class ContainerJobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        images.Podman.skip_if_missing()
        cls.podman = images.Podman()
        cls.addClassCleanup(cls.podman.stop)
        cls.image = cls.podman.make(IMAGE, [*images.SHELL, images.PYTHON], {"/etc/image": "the test's\n"})

    def setUp(self):
        self.home = tempfile.mkdtemp(prefix="basin-containers-")
        self.addCleanup(shutil.rmtree, self.home)
        self.environment, self.mark = processes.marked_environment(HOME=self.home)
        self.addCleanup(self.end_all)
        self.source = os.path.join(self.home, "project")
        os.makedirs(self.source)
        self.target()

    def end_all(self):
        for pid in [*processes.marked_pids(self.mark), *self.podman.pids()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended by itself
        processes.wait_until(lambda: not processes.marked_pids(self.mark) and not self.podman.pids(), "all processes have ended")
        for name in self.podman.containers():
            self.podman.run("rm", "--force", "--ignore", "--time=0", name)

    def target(self, **fields):
        path = os.path.join(self.home, ".config/basin/targets.yaml")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"here": {"kind": "local", **self.podman.target(), **fields}}, file)

    def write(self, name, text):
        with open(os.path.join(self.source, name), "w", encoding="utf-8") as file:
            file.write(text)

    def submit(self, script, name="main.sh", *flags, variables=None, **fields):
        """The submitting process."""
        self.write(name, script)
        job = {"experiment": "containers", "source_directory": self.source, "entry_script": name, "compute_target": "here",
               "custom_docker_image": IMAGE, "cancel_grace_seconds": 1, **fields}
        path = os.path.join(self.home, "job.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(job, file)
        process = processes.Process([BASIN, "submit", path, "--json", *flags], env={**self.environment, **(variables or {})}, cwd=self.home)
        self.addCleanup(process.kill)
        return process

    def folder(self):
        found = glob.glob(os.path.join(self.home, ".local/state/basin/runs/containers/*"))
        self.assertEqual(len(found), 1, found)
        return found[0]

    def read(self, *parts):
        with open(os.path.join(self.folder(), *parts), encoding="utf-8") as file:
            return file.read()

    def completes(self, submitted):
        self.assertEqual(submitted.wait(), 0, submitted.text())
        self.nothing_left()
        return json.loads(submitted.text("out"))

    def fails(self, submitted, pattern, code=1):
        self.assertEqual(submitted.wait(), code, submitted.text())
        self.assertRegex(submitted.text("err"), pattern)
        self.nothing_left()

    def nothing_left(self):
        """Neither a process of the run or its containers nor a container that the engine knows of."""
        left = lambda: {**{pid: "of the run" for pid in processes.marked_pids(self.mark)}, **self.podman.pids()}
        try:
            processes.wait_until(lambda: not left(), "")
        except AssertionError:
            self.assertEqual(left(), {})
        self.assertEqual(self.podman.containers(), [])

    def running(self, *flags, **fields):
        """A job of two workers that stay, once both are up."""
        submitted = self.submit(STAY, "main.sh", *flags, distributed_backend="ps", worker_count=2, parameter_server_count=0, **fields)
        trees = os.path.join(self.home, ".cache/basin/runs/*/node-0/tasks/worker-*/outputs/up")
        processes.wait_until(lambda: len(glob.glob(trees)) == 2 or not submitted.running(), "both workers are up")
        self.assertTrue(submitted.running(), submitted.text())
        return submitted

    def pid(self, name):
        role, index = name.split("-")
        # The start of a task and its being told are two things.
        task = lambda: next(task for task in json.loads(self.read("run.json"))["tasks"] if (task["role"], task["index"]) == (role, int(index)))
        return processes.wait_until(lambda: task().get("pid"), f"the pid of {name} is known")

    def parent(self, pid):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])

    def test_script_runs_in_the_image_at_the_nodes_paths_with_the_nodes_network(self):
        data = os.path.join(self.home, "data sets")
        os.makedirs(data)
        with open(os.path.join(data, "a.csv"), "w", encoding="ascii") as file:
            file.write("1,2\n")
        record = self.completes(self.submit("""
mkdir -p logs
cat /etc/image
cat "$BASIN_INPUT_DATA"
echo "home is writable: $([ -w "$HOME" ] && echo yes)"
echo "in $PWD and $BASIN_RUN_DIR"
echo "values: $GREETING / $WITH_LINES"
echo "network: $(readlink /proc/self/ns/net)  ipc: $(readlink /proc/self/ns/ipc)  mount: $(readlink /proc/self/ns/mnt)"
echo "limits: $(ulimit -n)"
printf %s "$TF_CONFIG" >outputs/config.json
echo kept >outputs/model.txt
""", inputs=[{"name": "data", "path": data + "/a.csv"}], distributed_backend="ps", parameter_server_count=0, worker_count=1,
            environment_variables={"GREETING": "it's \"$HOME\"", "WITH_LINES": "one\ntwo"}))
        log = self.read("logs/worker-0.txt")
        self.assertIn("the test's\n", log)
        self.assertIn("home is writable: yes", log)
        self.assertIn("\n1,2\n", log)
        self.assertIn("values: it's \"$HOME\" / one\ntwo\n", log)
        tree = log.partition("\nin ")[2].partition(" and ")
        self.assertEqual(tree[0], tree[2].partition("\n")[0])
        self.assertIn("/node-0/tasks/worker-0", tree[0])
        own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "mnt")}
        self.assertIn(f"network: {own['net']}  ipc: {own['ipc']}", log)
        self.assertNotIn(own["mnt"], log)
        self.assertEqual(json.loads(self.read("outputs/config.json")), {"cluster": {"worker": [record["tasks"][0]["address"]]},
                                                                       "task": {"type": "worker", "index": 0}})
        self.assertEqual(os.stat(os.path.join(self.folder(), "outputs/model.txt")).st_uid, os.getuid())
        told = [json.loads(line) for line in self.read("journal.jsonl").splitlines()]
        self.assertEqual([one["image"].rpartition(" ")[2] for one in told if one["event"] == "image"], [self.image[:12]])

    def test_pattern_of_an_input_is_expanded_by_the_script_as_without_a_container(self):
        data = os.path.join(self.home, "data")
        os.makedirs(data)
        for name in ("a.csv", "b.csv"):
            with open(os.path.join(data, name), "w", encoding="ascii") as file:
                file.write(name + "\n")
        self.completes(self.submit('cat $BASIN_INPUT_DATA', inputs=[{"name": "data", "path": data + "/*.csv"}]))
        self.assertEqual(self.read("logs/worker-0.txt"), "a.csv\nb.csv\n")

    def test_shm_size_is_the_containers_own(self):
        self.completes(self.submit('df -k /dev/shm; readlink /proc/self/ns/ipc', shm_size="48m"))
        log = self.read("logs/worker-0.txt")
        self.assertRegex(log, r"\b49152\b")
        self.assertNotIn(os.readlink("/proc/self/ns/ipc"), log)

    def test_packages_are_installed_inside_the_image_and_once(self):
        wheels = os.path.join(self.home, "wheels")
        os.makedirs(wheels)
        package = wheel(wheels, "basin_probe", "import os\nWHERE = open('/etc/image').read().strip()\n")
        fields = {"pip_packages": [package], "name": "main.py"}
        script = "import basin_probe, sys\nprint('installed:', basin_probe.WHERE, sys.prefix)\n"
        submitted = self.submit(script, **fields)
        self.completes(submitted)
        log = self.read("logs/worker-0.txt")
        self.assertIn("installed: the test's ", log)
        self.assertRegex(log, rf"/environments/pip-[0-9a-f]{{16}}-img{self.image[:12]}-py3\.")
        self.assertIn("Successfully installed basin-probe", self.read("logs/environment-0.txt").replace("basin_probe", "basin-probe"))
        shutil.rmtree(self.folder())
        self.completes(self.submit(script, **fields))
        self.assertIn("is there already", self.read("logs/environment-0.txt"))
        self.assertNotIn("pip install", self.read("logs/environment-0.txt"))
        # What is built for one image is of no use in another.
        other = self.podman.make(OTHER, [*images.SHELL, images.PYTHON], {"/etc/image": "another\n"})
        shutil.rmtree(self.folder())
        self.completes(self.submit(script, custom_docker_image=OTHER, **fields))
        self.assertIn("installed: another ", self.read("logs/worker-0.txt"))
        self.assertIn(f"-img{other[:12]}-", self.read("logs/worker-0.txt"))

    def test_secrets_are_on_no_command_line_in_no_file_and_not_in_the_engine(self):
        submitted = self.submit("echo \"length ${#PASSWORD}\"\n" + STAY, secrets=["PASSWORD"], variables={"PASSWORD": "s3cret-of-the-test"})
        up = os.path.join(self.home, ".cache/basin/runs/*/node-0/tasks/worker-0/outputs/up")
        processes.wait_until(lambda: glob.glob(up) or not submitted.running(), "the worker is up")
        seen = {}
        for pid, name in self.podman.pids().items():
            seen[f"command line of {pid}"] = name
        for name in self.podman.containers():
            seen["inspect"] = self.podman.must("inspect", name)
        for top in (os.path.join(self.home, ".cache"), self.folder(), self.podman.folder):
            for place, _, names in os.walk(top):
                for path in (os.path.join(place, name) for name in names):
                    with contextlib.suppress(FileNotFoundError):  # some come and go
                        if os.path.isfile(path) and os.path.getsize(path) < 1 << 20 and "/usr/" not in path:
                            with open(path, encoding="utf-8", errors="replace") as file:
                                seen[path] = file.read()
        submitted.send(signal.SIGTERM)
        self.fails(submitted, "canceling the run")
        self.assertIn("inspect", seen)
        self.assertEqual([where for where, text in seen.items() if "s3cret-of-the-test" in text], [])
        self.assertIn("length 18", self.read("logs/worker-0.txt"))

    def test_sigterm_reaches_the_script_once_and_what_ignores_it_is_killed(self):
        submitted = self.running(cancel_grace_seconds=60)  # the end of the script is its container's, so that nothing lasts as long
        submitted.send(signal.SIGTERM)
        self.fails(submitted, "canceling the run")
        for index in (0, 1):
            self.assertEqual(self.read(f"logs/worker-{index}.txt").count(f"goodbye of {index}"), 1)

    def test_no_container_outlives_a_killed_submitter(self):
        submitted = self.running()
        submitted.kill()
        self.nothing_left()

    def test_no_container_outlives_a_killed_agent(self):
        submitted = self.running()
        os.kill(self.parent(self.parent(self.pid("worker-1"))), signal.SIGKILL)
        self.fails(submitted, "localhost")

    def test_no_container_outlives_a_killed_guard(self):
        submitted = self.running()
        os.kill(self.parent(self.pid("worker-1")), signal.SIGKILL)
        self.fails(submitted, "worker 1")

    def test_no_container_outlives_a_killed_engine(self):
        submitted = self.running()
        os.kill(self.pid("worker-1"), signal.SIGKILL)
        self.fails(submitted, "worker 1 was ended by SIGKILL")

    def test_no_container_outlives_a_build_that_is_killed(self):
        wheels = os.path.join(self.home, "wheels")
        os.makedirs(wheels)
        wheel(wheels, "basin_slow", "")
        # pip waits for an index that never answers.
        with open(os.path.join(self.source, "requirements.txt"), "w", encoding="ascii") as file:
            file.write("--index-url http://127.0.0.1:1/simple\n--retries 1000\nbasin-not-there==7\n")
        submitted = self.submit("echo never", pip_requirements_file="requirements.txt", variables={"PIP_RETRIES": "100000"})
        processes.wait_until(lambda: self.podman.containers() and any("pip" in text for text in self.podman.pids().values()) or
                             not submitted.running(), "pip runs in a container")
        self.assertTrue(submitted.running(), submitted.text())
        submitted.kill()
        self.nothing_left()

    def test_what_kills_the_script_is_told_as_a_signal(self):
        record_of = lambda submitted: json.loads(submitted.text("out"))
        submitted = self.submit("kill -SEGV $$; sleep 10")
        self.fails(submitted, "SIGSEGV")
        self.assertEqual(record_of(submitted)["tasks"][0]["signal"], signal.SIGSEGV)

    def test_missing_image_is_named_with_engine_and_node_and_what_to_do(self):
        self.fails(self.submit("echo never", custom_docker_image="127.0.0.1:1/not/there:7"),
                   r"(?s)node localhost.*podman has no image 127\.0\.0\.1:1/not/there:7 and could not pull.*podman login 127\.0\.0\.1:1.*podman load")
        self.assertIn("pulling image 127.0.0.1:1/not/there:7", self.read("logs/environment-0.txt"))

    def test_missing_engine_is_named_with_the_node_and_what_to_do(self):
        self.target(container_engine=["apptainer"])
        self.fails(self.submit("echo never"), r"(?s)node localhost.*there is no apptainer on PATH, which image localhost/basin-test:1 needs\s+install apptainer")

    def test_engine_that_does_not_work_is_told_in_its_own_words(self):
        self.target(container_engine_options=["--storage-driver", "nonsense"])
        self.fails(self.submit("echo never"), r"(?s)podman \(/\S+/podman\) does not work:.*nonsense")

    def test_program_that_the_image_lacks_is_named(self):
        self.write("other.run", "#!/usr/bin/perl\n")
        os.chmod(os.path.join(self.source, "other.run"), 0o755)
        small = "localhost/basin-small:1"
        self.podman.make(small, ["/bin/sh", "/usr/bin/cat"])
        self.fails(self.submit("print()", "main.py", custom_docker_image=small), "image localhost/basin-small:1 has no program python3 that can be run")

    def test_built_in_programs_and_shm_sizes_without_an_image_are_refused(self):
        self.fails(self.submit("", entry_script="basin:mlp"), "custom_docker_image: conflicts with entry_script: basin:mlp", 2)
        self.fails(self.submit("", custom_docker_image=None, shm_size="1g"), "shm_size: is of a container", 2)

    def test_parameter_servers_of_basin_run_on_the_node_itself(self):
        submitted = self.submit(": >outputs/up; until [ -e outputs/go ]; do sleep 0.05; done", distributed_backend="ps",
                                parameter_server_count=1, worker_count=1)
        trees = os.path.join(self.home, ".cache/basin/runs/*/node-0/tasks/worker-0/outputs/")
        processes.wait_until(lambda: glob.glob(trees + "up") or not submitted.running(), "the worker is up")
        self.assertEqual(os.readlink(f"/proc/{self.pid('ps-0')}/ns/mnt"), os.readlink("/proc/self/ns/mnt"), submitted.text())
        with open(glob.glob(trees)[0] + "go", "w", encoding="ascii"):
            pass
        self.completes(submitted)

    def test_image_of_basin_is_made_of_the_bundle_and_a_base_alone(self):
        processes.build_bundle()
        made = self.podman.must("build", "--quiet", "--build-arg", f"BASE={IMAGE}", "--file", processes.source("cmake", "Containerfile"),
                                "--tag", "localhost/basin", os.path.join(os.environ["BASIN_BINARY_DIR"], "bundle"))
        self.assertTrue(made.strip())
        run = lambda *words: self.podman.must("run", "--rm", "--network", "host", *images.limits(), *images.OPTIONS, "localhost/basin", *words)
        self.assertRegex(run("basin", "--version"), r"^basin \d")
        self.assertRegex(run("basin-ps", "--help"), "listen")
        # The library finds all that it needs beside itself.
        self.assertIn("loaded", run("python3", "-c", "import ctypes, os, basin; ctypes.CDLL(os.environ['BASIN_LIBRARY']); print('loaded')"))
        self.assertIn("Runs a job", run())


if __name__ == "__main__":
    unittest.main()
