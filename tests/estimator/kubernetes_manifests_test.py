"""What `basin submit --dry-run` would create on Kubernetes, the examples, and what the stand-in for kubectl answers: all by the systems' own models."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path[:0] = [os.path.join(os.environ["BASIN_SOURCE_DIR"], *parts) for parts in (("tests", "cluster"), ("tests", "install"))]
import needs  # noqa: E402
import processes  # noqa: E402
import virtual_environment  # noqa: E402

MODELS = ("kubernetes-validate==1.37.0", "kubeflow-trainer-api==2.3.0", "kubeflow-training==1.9.4", "PyYAML==6.0.3")
HERE = os.path.dirname(os.path.abspath(__file__))
READ_YAML = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"
PLAIN = {"image": "registry.example/basin:1"}
FULL = {"image": "registry.example/basin:1", "image_pull_policy": "IfNotPresent", "programs": "/opt/basin/bin", "namespace": "training",
        "service_account": "trainer", "pull_secrets": ["a", "b"], "shm_size": "2Gi", "labels": {"kueue.x-k8s.io/queue-name": "team"},
        "source": "claim:code/project", "outputs": "claim:results", "resources": {"ps": {"cpu": 4, "memory": "8Gi"}, "worker": {"cpu": "500m"}},
        "pod_overlay": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}], "hostNetwork": True,
                        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                        "containers": [{"name": "basin", "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                                        "securityContext": {"runAsUser": 1000}}]}}


class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.python = virtual_environment.python_with(*MODELS)
        except virtual_environment.NotThere as reason:
            needs.skip(str(reason))

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.makedirs(self.path("src"))
        with open(self.path("src", "train.py"), "w", encoding="ascii") as file:
            file.write("print('hello')\n")
        with open(self.path("targets.yaml"), "w", encoding="ascii") as file:
            file.write("cluster: {kind: kubernetes}\n")

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def dry_run(self, controller, kubernetes, *flags, **fields):
        job = {"entry_script": "train.py", "source_directory": "src", "distributed_backend": "ps", "compute_target": "cluster",
               "kubernetes": {**kubernetes, "controller": controller}, **fields}
        with open(self.path("job.json"), "w", encoding="ascii") as file:
            json.dump(job, file)
        done = subprocess.run([processes.binary("basin"), "submit", self.path("job.json"), "--dry-run", *flags], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env={"HOME": self.folder, "PATH": os.environ["PATH"], "KEY": "hush"}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def complaints(self, things):
        done = subprocess.run([self.python, "-B", os.path.join(HERE, "kubernetes_models.py")], input=json.dumps(things), capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def read_yaml(self, text):
        return json.loads(subprocess.run([self.python, "-c", READ_YAML], input=text, capture_output=True, text=True, check=True).stdout)

    def restricted(self):
        """The overlay that docs/kubernetes.md has for Pod Security "restricted"."""
        with open(processes.source("docs/kubernetes.md"), encoding="utf-8") as file:
            (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", file.read(), re.S) if "seccompProfile" in one]
        return self.read_yaml(block)[0]["kubernetes"]["pod_overlay"]

    def test_overlay_of_the_page_makes_pods_that_pod_security_restricted_admits(self):
        for thing in json.loads(self.dry_run("jobs", {**FULL, "pod_overlay": self.restricted()}, "--json"))["items"]:
            if thing["kind"] != "Job":
                continue
            pod = thing["spec"]["template"]["spec"]
            self.assertEqual({name for volume in pod["volumes"] for name in volume} - {"name"} - {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}, set())
            self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(pod))
            self.assertTrue(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for container in pod["containers"]:
                self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}})
                self.assertFalse([port for port in container.get("ports", []) if "hostPort" in port])

    def test_objects_of_jobs_are_what_the_systems_know(self):
        roles = {"parameter_server_count": 2, "worker_count": 3, "chief_count": 1, "evaluator_count": 1}
        gpus = {"use_gpu": True, "node_count": 3, "secrets": ["KEY"], "max_run_duration_seconds": 600, "setup": ["module load x"], **roles}
        alone = {"distributed_backend": None, "entry_script": "basin:mlp", "source_directory": None}
        kinds = {"jobset": ["JobSet"], "jobs": ["Service", "Job", "Job", "Job", "Job"]}
        all_things = []
        for controller, last in kinds.items():
            for settings, fields in ((PLAIN, roles), (FULL, gpus), (PLAIN, alone), ({**PLAIN, "pod_overlay": self.restricted()}, roles)):
                things = json.loads(self.dry_run(controller, settings, "--json", **fields))["items"]
                if fields is not alone:
                    self.assertEqual([thing["kind"] for thing in things if thing["kind"] not in ("ConfigMap", "Secret")], last)
                self.assertNotIn("hush", json.dumps(things))
                all_things += things
        self.assertEqual(self.complaints(all_things), [])  # at once: the models take long to load

    def test_a_wrong_field_would_be_a_complaint(self):
        things = json.loads(self.dry_run("jobset", PLAIN, "--json"))["items"]
        jobset = next(thing for thing in things if thing["kind"] == "JobSet")
        jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["comand"] = ["x"]
        jobset["spec"]["sucessPolicy"] = {}
        self.assertGreaterEqual(len(self.complaints(things)), 2)

    def test_yaml_says_the_same_as_json(self):
        # The run's id is new each time.
        same = lambda things: json.dumps(things, sort_keys=True).replace(things[0]["metadata"]["labels"]["basin-run"], "RUN")
        for settings in (PLAIN, FULL):
            listed = json.loads(self.dry_run("jobset", settings, "--json"))["items"]
            self.assertEqual(same(self.read_yaml(self.dry_run("jobset", settings))), same(listed))

    def test_examples_are_what_the_systems_know(self):
        with open(processes.source("examples/07_kubernetes/tfjob.yaml"), encoding="utf-8") as file:
            self.assertEqual(self.complaints(self.read_yaml(file.read())), [])
        done = subprocess.run([processes.binary("basin"), "submit", "job.yaml", "--targets", "targets.yaml", "--dry-run", "--json"],
                              capture_output=True, text=True, cwd=processes.source("examples/07_kubernetes"), stdin=subprocess.DEVNULL,
                              env={"HOME": self.folder, "PATH": "/usr/bin:/bin"}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.complaints(json.loads(done.stdout)["items"]), [])

    def test_stand_in_answers_in_the_shape_of_the_api(self):
        if os.geteuid() != 0:
            needs.skip("pods of the stand-in are made by root")
        environment, mark = processes.marked_environment(KUBECTL_STAND_IN=self.folder, HOME=self.folder)
        kubectl = [sys.executable, "-B", os.path.join(HERE, "kubectl_stand_in.py")]
        call = lambda *words, text="": subprocess.run([*kubectl, *words], input=text, capture_output=True, text=True, env=environment, check=True).stdout
        things = json.loads(self.dry_run("jobset", PLAIN, "--json"))
        call("create", "-f", "-", text=json.dumps(things))
        pods = lambda: json.loads(call("get", "pods", "-o", "json"))["items"]
        # basin is not on the PATH of these pods, so that they end at once.
        processes.wait_until(lambda: all(pod["status"]["phase"] == "Failed" for pod in pods()), "the pods have ended")
        jobs = lambda: json.loads(call("get", "jobs,jobsets.jobset.x-k8s.io", "-o", "json"))["items"]
        # What made them is judged after them.
        judged = processes.wait_until(lambda: (lambda found: found if all("status" in thing for thing in found) else None)(jobs()), "the Jobs are judged")
        conditions = {thing["kind"]: thing["status"]["conditions"][0]["type"] for thing in judged}
        self.assertEqual(conditions, {"JobSet": "Failed", "Job": "Failed"})
        self.assertEqual(self.complaints(pods() + [job for job in judged if job["kind"] == "Job"]), [])
        call("delete", "jobsets.jobset.x-k8s.io,configmaps,secrets", "--selector=basin-run=" + things["items"][0]["metadata"]["labels"]["basin-run"])
        self.assertEqual(pods(), [])
        processes.wait_until(lambda: not processes.marked_pids(mark), "nothing is left")


if __name__ == "__main__":
    unittest.main()
