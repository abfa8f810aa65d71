"""The shapes of TF_CONFIG that platforms hand out, each with real processes that train a model."""

import json
import os
import unittest

import clusters
import processes

# As the Azure Machine Learning page prints it, trailing comma included; host names stand for loopback addresses.
AZURE = """{
    "cluster": {
        "ps": ["host0:2222", "host1:2222"],
        "worker": ["host2:2222", "host3:2222", "host4:2222"],
    },
    "task": {"type": "ps", "index": 0},
    "environment": "cloud"
}"""


class ShapesTest(clusters.ClusterCase):
    def accuracy(self, text):
        lines = [line for line in text.splitlines() if "test accuracy" in line]
        self.assertTrue(lines, text)
        return float(lines[-1].rpartition("test accuracy ")[2])

    def test_azure_example_started_by_hand_trains_a_model(self):
        hosts = [f"127.0.0.{i + 1}" for i in range(5)]
        port = clusters.free_port_of_all(hosts)
        config = AZURE
        for i, host in enumerate(hosts):
            config = config.replace(f"host{i}:2222", f"{host}:{port}")
        config = config.replace(f', "127.0.0.5:{port}"', "")  # two workers and, outside the cluster, an evaluator
        of = lambda role, index: config.replace('"type": "ps", "index": 0', f'"type": "{role}", "index": {index}')
        outputs = self.path("outputs")
        evaluator = self.start_worker(None, 0, "--outputs", outputs, "--evaluate-every", "0.2", tf_config=of("evaluator", 0))
        ps = []

        def start(index):
            worker = self.start_worker(None, index, "--epochs", "80", "--outputs", outputs, tf_config=of("worker", index))
            # The ps come between the workers. The chief is started last: its training must not be over before the others have come.
            if not ps:
                ps.extend(self.start_ps(None, i, tf_config=of("ps", i)) for i in range(2))
                evaluator.wait_for_line(": evaluating ")
            return worker

        workers = self.start_workers(2, start)
        self.assertIn(f"listening on 127.0.0.2:{port}", ps[1].text())
        self.all_end(workers + [evaluator] + ps)
        for task in workers + ps:
            self.assertRegex(task.text("err"), r"warning: TF_CONFIG line \d+ column \d+: a comma before")
        self.assertIn("as the chief", workers[0].text())
        self.assertGreater(self.accuracy(evaluator.text()), 0.9)
        with open(os.path.join(outputs, "evaluation.json")) as file:
            self.assertGreater(json.load(file)["test_accuracy"], 0.9)
        self.assertTrue(os.path.exists(os.path.join(outputs, "model.safetensors")))

    def test_kubeflow_dynamic_workers_whose_ps_see_only_themselves(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = [self.start_ps(layout, i, tf_config=json.dumps({"cluster": {"worker": {}, "ps": [layout.ps[i]]}, "task": {"type": "ps", "index": i},
                                                             "environment": "cloud"})) for i in range(2)]
        workers = self.start_workers(2, lambda i: self.start_worker(layout, i, "--epochs", "40", "--outputs", self.path("outputs"), tf_config=json.dumps(
            {"cluster": {"worker": {str(i): layout.workers[i]}, "ps": layout.ps}, "task": {"type": "worker", "index": i}, "environment": "cloud"})))
        self.all_end(workers + ps)
        for one in ps:
            self.assertIn("the run is over", one.text())
        self.assertTrue(os.path.exists(self.path("outputs", "model.safetensors")))

    def test_dynamic_ps_of_another_run_refuses(self):
        layout = clusters.Layout(ps=2, workers=1)
        ps = [self.start_ps(layout, i, tf_config=json.dumps({"cluster": {"worker": {}, "ps": [layout.ps[i]]}, "task": {"type": "ps", "index": i}})) for i in range(2)]
        config = json.dumps({"cluster": {"worker": {"0": layout.workers[0]}, "ps": layout.ps}, "task": {"type": "worker", "index": 0}})
        first = self.start_counter(layout, 0, "--pushes", "20", "--hold", self.hold(), tf_config=config)
        first.wait_for_line("half-way")
        swapped = json.dumps({"cluster": {"worker": {"1": layout.workers[0]}, "ps": layout.ps[::-1]}, "task": {"type": "worker", "index": 1}})
        self.assertRegex(self.ends(self.start_counter(layout, 0, tf_config=swapped), 2), r"this is ps 1 .*the client takes it for ps 0; give all tasks the same list of ps|without a run id")
        self.assertIn('belongs to run', self.ends(self.start_counter(layout, 0, "--claim-timeout", "1", tf_config=config, BASIN_RUN_ID="pear"), 2))
        self.release()
        self.all_end([first] + ps)

    def test_job_named_chief_or_master_is_the_chief(self):
        for name in ("chief", "master"):
            with self.subTest(name):
                layout = clusters.Layout(ps=1, workers=1, chief=name)
                outputs = self.path(name)
                start = lambda role: self.start_worker(layout, 0, "--epochs", "40", "--outputs", outputs, role=role)
                worker, ps = start("worker"), self.start_ps(layout)
                worker.wait_for_line(": training ")  # the run ends with its chief, which must not be done before
                chief = start(name)
                self.all_end([chief, worker, ps])
                self.assertIn("as the chief", chief.text())
                self.assertNotIn("as the chief", worker.text())
                self.assertTrue(os.path.exists(os.path.join(outputs, "model.safetensors")))

    def test_sagemaker_has_a_ps_beside_the_master_and_each_worker(self):
        hosts = ["127.0.0.1", "127.0.0.2"]
        port = clusters.free_port_of_all(hosts)
        ps_port = clusters.free_port_of_all(hosts)
        cluster = {"master": [f"{hosts[0]}:{port}"], "worker": [f"{hosts[1]}:{port}"], "ps": [f"{host}:{ps_port}" for host in hosts]}
        of = lambda role, index: json.dumps({"cluster": cluster, "task": {"type": role, "index": index}, "environment": "cloud"})
        ps = [self.start_ps(None, i, tf_config=of("ps", i)) for i in range(2)]
        tasks = self.start_workers(2, lambda index: self.start_worker(None, 0, "--epochs", "4", tf_config=of(("master", "worker")[index], 0)))
        self.all_end(tasks + ps)

    def test_worker_without_tf_config_trains_alone_and_leaves_no_process(self):
        worker = self.start_worker(None, 0, "--epochs", "8", "--outputs", self.path("outputs"), tf_config="")
        text = self.ends(worker)
        self.assertIn("TF_CONFIG names no cluster: training alone", text)
        self.assertGreater(self.accuracy(worker.text("out")), 0.9)
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "its ps has ended")

    def test_killed_worker_without_tf_config_leaves_no_ps(self):
        worker = self.start_worker(None, 0, "--epochs", "1000000", tf_config="")
        worker.wait_for_line("training softmax")
        self.assertEqual(len(processes.marked_pids(self.mark)), 2)
        worker.kill()
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "its ps has ended")


if __name__ == "__main__":
    unittest.main()
