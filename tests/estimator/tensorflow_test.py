"""Stock TensorFlow jobs, with TensorFlow's own parameter servers: both of examples/05_tensorflow as shipped, the Azure page's
sample on two hosts, and what Basin makes of those that fail."""

import glob
import json
import os
import re
import shutil
import signal
import sys
import unittest

sys.path[:0] = [os.path.join(os.environ["BASIN_SOURCE_DIR"], "tests", folder) for folder in ("cluster", "install")]
import clusters  # noqa: E402  (the path is set above)
import needs  # noqa: E402
import processes  # noqa: E402
import ssh_hosts  # noqa: E402
import virtual_environment  # noqa: E402

DATA = "/usr/share/datasets/fashion-mnist"
EXAMPLE = processes.source("examples", "05_tensorflow")
PACKAGE = "tensorflow-cpu==2.21.0"
DEADLINE_S = 900
LEARNED = 0.7  # a tenth is chance, and so few asynchronous steps end some hundredths apart; docs/tensorflow.md has what a whole run reaches
STOPPED = int(signal.SIGTERM)

# The page's sample (2 nodes, 2 workers, 1 ps). Of Basin: the imports, and that the ps is TensorFlow's.
PAGE = """
from basin.core import Experiment, Workspace
from basin.train.dnn import TensorFlow

experiment = Experiment(workspace=Workspace.from_config(), name='page')
tf_est = TensorFlow(source_directory='./my-tf-proj',
                    script_params={'--steps': 400},
                    compute_target='lab',
                    entry_script='low_level.py',
                    node_count=2,
                    worker_count=2,
                    parameter_server_count=1,
                    distributed_backend='ps',
                    pip_packages=['%s'],
                    parameter_server='script',
                    use_gpu=False)
run = experiment.submit(tf_est)
run.wait_for_completion()
run.download_file('logs/worker-0.txt', 'worker-0.txt')
print(run.get_status())
""" % PACKAGE


def setUpModule():
    if not os.path.isdir(DATA):
        needs.skip(f"{DATA} is not there (Debian package dataset-fashion-mnist)")
    global python
    try:
        python = virtual_environment.python_of_job(PACKAGE)
    except virtual_environment.NotThere as reason:
        needs.skip(str(reason))


class OnThisMachine(clusters.ClusterCase):
    def submit(self, job, *flags):
        return self.start([processes.binary("basin"), "submit", os.path.join(EXAMPLE, job), "--runs", self.path("runs"), "--json", *flags],
                          **virtual_environment.FINDS_ENVIRONMENT)

    def ends(self, submit, code, state):
        """Its record, once the run is over as expected and none of its processes is left."""
        self.assertEqual(submit.wait(deadline_s=DEADLINE_S), code, submit.text())
        # The agent says goodbye before it ends.
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "no process of the run is left")
        record = json.loads(submit.text("out"))
        self.assertEqual(record["state"], state)
        return record

    def ends_of(self, record):
        return {f"{task['role']}/{task['index']}": task.get("exit_code", task.get("signal")) for task in record["tasks"]}

    def reached(self, text):
        return float(re.search(r"^test accuracy (0\.\d{4})$", text, re.MULTILINE).group(1))

    def log(self, record, task):
        path = os.path.join(record["folder"], "logs", f"{task}.txt")
        if not os.path.exists(path):
            return ""  # it has printed nothing yet
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def running(self, experiment):
        """The record of the run as it is now; None where it is not there yet."""
        for path in glob.glob(self.path("runs", experiment, "*", "run.json")):
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        return None

    def test_parameter_server_strategy_learns_and_its_servers_are_ended_after_the_chief(self):
        record = self.ends(self.submit("strategy.yaml", "--param", "--epochs=2"), 0, "Completed")
        self.assertEqual(self.ends_of(record), {"chief/0": 0, **dict.fromkeys(["ps/0", "ps/1", "worker/0", "worker/1"], STOPPED)})
        self.assertGreater(self.reached(self.log(record, "chief-0")), LEARNED)
        self.assertGreater(os.path.getsize(os.path.join(record["folder"], "outputs", "model.npz")), 4 * 784 * 128)

    def test_low_level_script_learns_and_its_ps_is_ended_after_the_workers(self):
        record = self.ends(self.submit("low_level.yaml", "--param", "--steps=800"), 0, "Completed")
        self.assertEqual(self.ends_of(record), {"ps/0": STOPPED, "worker/0": 0, "worker/1": 0})
        self.assertGreater(self.reached(self.log(record, "worker-0")), LEARNED)
        self.assertRegex(self.log(record, "worker-1"), r"(?m)^\d+ of \d+ steps$")

    def test_chief_that_fails_is_named_and_its_servers_are_ended(self):
        with open(os.path.join(EXAMPLE, "strategy.yaml"), encoding="utf-8") as file:
            job = file.read()
        for shipped, here in (("source_directory: .", f"source_directory: {EXAMPLE}"), ("server_count: 2", "server_count: 1"), ("worker_count: 2", "worker_count: 1")):
            self.assertIn(shipped, job)
            job = job.replace(shipped, here)
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write(job)
        submit = self.submit(self.path("job.yaml"), "--input", f"data={self.folder}")
        record = self.ends(submit, 1, "Failed")
        self.assertEqual(record["reason"], "chief 0 exited with code 1")
        self.assertEqual(self.ends_of(record), {"chief/0": 1, "ps/0": STOPPED, "worker/0": STOPPED})
        # TensorFlow's own words.
        self.assertRegex(submit.text("err"), r"train-images-idx3-ubyte.gz; No such file or directory")

    def test_a_dead_ps_is_the_end_and_is_named(self):
        submit = self.submit("low_level.yaml", "--param", "--steps=1000000")

        def trains():
            record = self.running("tensorflow-low-level")
            return record and record["state"] == "Running" and re.search(r"(?m)^step \d+", self.log(record, "worker-0")) and record

        record = processes.wait_until(lambda: trains() or not submit.running(), "worker 0 trains", DEADLINE_S)
        self.assertTrue(submit.running(), submit.text())
        os.kill(next(task["pid"] for task in record["tasks"] if task["role"] == "ps"), signal.SIGKILL)
        self.assertEqual(self.ends(submit, 1, "Failed")["reason"], "ps 0 was ended by SIGKILL")

    def test_without_tf_config_each_script_says_so_itself(self):
        for script, message in (("strategy.py", "TF_CONFIG is not set"), ("low_level.py", "ValueError: TF_CONFIG not found.")):
            begun = self.start([python, "-B", os.path.join(EXAMPLE, script)])
            self.assertEqual(begun.wait(deadline_s=DEADLINE_S), 1, begun.text())
            self.assertIn(message, begun.text("err"))


class OnTwoHosts(unittest.TestCase):
    def test_azures_page_sample_from_python(self):
        ssh_hosts.skip_if_missing()
        with ssh_hosts.Hosts(2) as hosts:
            hosts.submitter.write("/root/.config/basin/targets.yaml", "lab:\n  kind: ssh\n  nodes: [h0, h1]\n  folder: /shared/basin\n")
            # As if an earlier job had made it: both hosts see it, under the name that this job asks for.
            name = os.path.join("basin", "environments", os.path.basename(os.path.dirname(os.path.dirname(python))))
            os.makedirs(os.path.join(hosts.shared, os.path.dirname(name)), 0o700)
            shutil.copytree(os.path.dirname(os.path.dirname(python)), os.path.join(hosts.shared, name), symlinks=True, copy_function=os.link)
            for script in ("low_level.py", "fashion_mnist.py"):
                with open(os.path.join(EXAMPLE, script), encoding="utf-8") as file:
                    hosts.submitter.write(f"/root/my-tf-proj/{script}", file.read())
            hosts.submitter.write("/root/page.py", PAGE)
            page = hosts.submitter.start(["/usr/bin/python3", "page.py"], PYTHONPATH=processes.source("python"),
                                         BASIN_PROGRAM=processes.binary("basin"))
            self.assertEqual(page.wait(deadline_s=DEADLINE_S), 0, page.text())
            self.assertEqual(page.text("out").splitlines()[-1], "Completed")
            with open(hosts.submitter.path("/root/worker-0.txt"), encoding="utf-8", errors="replace") as file:
                self.assertGreater(float(re.search(r"(?m)^test accuracy (.*)$", file.read()).group(1)), LEARNED)
            processes.wait_until(lambda: not any(host.pids() for host in hosts), "no process of the run is left")


if __name__ == "__main__":
    unittest.main()
