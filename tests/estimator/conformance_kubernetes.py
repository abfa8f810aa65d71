"""Kubernetes as a target of the conformance suite, on the stand-in for kubectl (no real cluster), and what only a cluster does to a run."""

import json
import os
import shutil
import signal
import subprocess
import sys

import conformance_faults
import conformance_jobs
import conformance_runs
import needs
from conformance_case import STAY, processes, ssh_hosts
from conformance_faults import COUNT
from conformance_targets import BASIN, LocalTarget, pid_in_its_namespace

STAND_IN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kubectl_stand_in.py")
TARGETS = """cluster:
  kind: kubernetes
  kubernetes: {image: registry.example/basin:1, pull_seconds: 1}
  ping_seconds: 1
  lease_seconds: 2
"""
# Cases of the suite that say nothing here, and why.
NOT_HERE = {
    "test_taken_port_is_passed_over": "each pod has an address of its own, where nobody else listens",
    "test_port_that_a_stranger_takes_repeats_the_start_with_others": "each pod has an address of its own, where nobody else listens",
    "test_killed_submitter_leaves_no_process_and_a_readable_history":
        "the cluster holds the run, not the submitter: see test_run_outlives_its_killed_submitter",
}


def missing():
    if os.geteuid() != 0:
        return "pods of the stand-in are made by root"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/run"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"this kernel or container does not let us make pods: {tried.stderr.strip()}"


class KubernetesTarget(LocalTarget):
    """A cluster of the nodes n0 and n1: pod i of a role is on node i mod 2. It and the submitter have a network of their own, a loopback one."""

    kind = "kubernetes"
    nodes = ["n0", "n1"]
    submit_flags = ["--target", "cluster"]

    def __init__(self):
        if missing():
            needs.skip(missing())
        super().__init__()
        self._network = subprocess.Popen(["unshare", "--net", "--fork", "--kill-child", "sh", "-c", "ip link set lo up && echo up && exec cat"],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._network_of = str(ssh_hosts.child_of(self._network))
        if self._network.stdout.readline() != "up\n":
            raise AssertionError("no network could be made; what it says stands above")
        self.cluster = os.path.join(self.home, "cluster")
        os.makedirs(os.path.join(self.home, "bin"))
        os.symlink(STAND_IN, os.path.join(self.home, "bin", "kubectl"))
        path = f"{self.home}/bin:{os.path.dirname(BASIN)}:{os.environ['PATH']}"
        self.environment.update(PATH=path, KUBECTL_STAND_IN=self.cluster, PYTHONDONTWRITEBYTECODE="1")
        os.makedirs(os.path.join(self.home, ".config/basin"))
        with open(os.path.join(self.home, ".config/basin/targets.yaml"), "w", encoding="utf-8") as file:
            file.write(TARGETS)
        self.clear()

    def start(self, argv, **environment):
        return super().start([shutil.which("nsenter"), "--target", self._network_of, "--net", "--", *argv], **environment)

    def stop(self):
        super().stop()
        self._network.stdin.close()
        self._network.wait(processes.DEADLINE_S)
        self._network.stdout.close()

    def say(self, **settings):
        """What the cluster is like from now on (kubectl_stand_in.SETTINGS)."""
        name = os.path.join(self.cluster, "settings.json")
        with open(name + ".part", "w", encoding="utf-8") as file:
            json.dump(settings, file)
        os.replace(name + ".part", name)

    def pid_on(self, node, pid):
        for one in self.pids():
            try:
                with open(f"/proc/{one}/environ", "rb") as file:
                    index = dict(line.split(b"=", 1) for line in file.read().split(b"\0") if b"=" in line).get(b"JOB_COMPLETION_INDEX")
            except OSError:
                continue  # it has just ended
            if index is not None and self.nodes[int(index) % 2] == node and pid_in_its_namespace(one) == pid:
                return one
        return None

    def runs_on_nodes(self):
        """What is left in the cluster: objects of whatever kind."""
        return [os.path.join(place, name) for place, _, names in os.walk(os.path.join(self.cluster, "objects")) for name in names]

    def objects(self, kind):
        folder = os.path.join(self.cluster, "objects", kind)
        found = []
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    found.append(json.load(file))
            except FileNotFoundError:
                pass  # deleted since
        return found

    def clear(self):
        super().clear()
        shutil.rmtree(self.cluster, ignore_errors=True)
        os.makedirs(self.cluster)


class KubernetesCases(conformance_faults.Faults, conformance_jobs.Jobs, conformance_runs.Runs):
    def said(self, text, submitted):
        processes.wait_until(lambda: text in submitted.text("err") or not submitted.running(), f"the submitter says {text!r}")
        self.assertIn(text, submitted.text("err"))

    # A pod's disk goes with it.
    test_outputs_of_a_run_whose_folder_is_removed_stay_on_their_node = None

    def test_objects_are_as_the_job_says(self):
        submitted = self.submit("echo key is $KEY" + STAY, use_gpu=None, evaluator_count=1, secrets=["KEY"], environment_variables={"FLAGS": self.flags},
                                kubernetes={"namespace": "default", "service_account": "trainer", "pull_secrets": ["registry"], "shm_size": "32Mi",
                                            "labels": {"team": "vision"}, "resources": {"worker": {"cpu": 2, "memory": "1Gi"}},
                                            "pod_overlay": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "basin", "tty": False}]}}, **{})
        self.assertEqual(submitted.wait(), 2, submitted.text())  # KEY is not set
        self.assertIn("KEY", submitted.text("err"))
        submitted = self.basin("submit", os.path.join(self.target.home, "job.json"), "--json", *self.target.submit_flags, KEY="hush")
        self.wait_until_up(submitted, ("worker-0", "worker-1", "evaluator-0"))
        pods = self.target.objects("Pod")
        self.assertEqual(len(pods), 3)
        for pod in pods:
            spec = pod["spec"]
            self.assertEqual((spec["serviceAccountName"], spec["imagePullSecrets"], spec["nodeSelector"]), ("trainer", [{"name": "registry"}], {"disk": "ssd"}))
            self.assertEqual(spec["containers"][0]["image"], "registry.example/basin:1")
            self.assertIn({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}, spec["volumes"])
            self.assertEqual(pod["metadata"]["labels"]["team"], "vision")
        worker = next(pod for pod in pods if pod["metadata"]["labels"]["basin-role"] == "worker")
        self.assertEqual(worker["spec"]["containers"][0]["resources"]["limits"], {"cpu": "2", "memory": "1Gi"})
        self.assertNotIn("hush", json.dumps(pods))
        submitted.send(signal.SIGTERM)
        self.ends(submitted, 1, "Canceled")
        self.assertIn("key is hush\n", self.read("logs/worker-0.txt"))
        self.nothing_left()

    def test_cluster_without_jobset_gets_a_service_and_jobs(self):
        self.target.say(jobset=False)
        submitted = self.submit(STAY.replace("while :; do sleep 0.05; done", "until_flag go"))
        self.wait_until_up(submitted)
        self.assertEqual(self.target.objects("JobSet"), [])
        self.assertEqual([service["spec"]["clusterIP"] for service in self.target.objects("Service")], ["None"])
        self.raise_flag("go")
        record = self.ends(submitted)
        run = "basin-" + record["run_id"]
        self.assertEqual([task["address"] for task in record["tasks"]], [f"{run}-worker-{index}.{run}:2222" for index in (0, 1)])
        self.nothing_left()

    def test_run_waits_with_the_schedulers_reason(self):
        self.target.say(unschedulable="0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
        submitted = self.submit("echo done")
        self.assertIn("2 Insufficient nvidia.com/gpu", self.wait_for_state("Queued")["reason"])
        self.target.say()
        self.ends(submitted)
        self.nothing_left()

    def test_image_that_cannot_be_pulled_fails_the_run_and_is_named(self):
        self.target.say(no_image="registry.example/basin:1")
        record = self.ends(self.submit("echo done"), 1, "Failed")
        self.assertRegex(record["reason"], "image registry.example/basin:1 cannot be pulled: ImagePullBackOff.*pull_secrets")
        self.nothing_left()

    def test_silent_cluster_is_not_responding_until_it_answers(self):
        submitted = self.submit(COUNT)
        self.wait_until_up(submitted)
        self.target.say(down=True)
        self.assertIn("refused", self.wait_for_state("NotResponding")["reason"])
        self.target.say()
        self.wait_for_state("Running")
        self.raise_flag("enough")
        self.ends(submitted)
        self.check_count("worker-1")
        self.nothing_left()

    def test_run_outlives_its_killed_submitter(self):
        submitted = self.submit(COUNT)
        record = self.wait_until_up(submitted)
        self.wait_for_lines()
        submitted.kill()
        self.assertEqual(len([pod for pod in self.target.objects("Pod") if pod["status"]["phase"] == "Running"]), 2)
        attached = self.basin("attach", record["run_id"], "--json")
        self.raise_flag("enough")
        self.ends(attached)
        self.check_count("worker-0")
        self.nothing_left()

    def test_cancel_deletes_what_a_killed_submitter_left(self):
        submitted = self.submit(STAY)
        run = self.wait_until_up(submitted)["run_id"]
        submitted.kill()
        self.assertEqual(self.asks("cancel", run)["run_id"], run)
        self.nothing_left()

    def test_cancel_while_pods_build_their_environment(self):
        silent = processes.listen_on(7777, self.target.start)  # an index that never answers
        self.write("requirements.txt", "--index-url http://127.0.0.1:7777/simple\nbasin-not-there==7\n")
        submitted = self.submit("echo never", pip_requirements_file="requirements.txt")
        processes.wait_until(lambda: submitted.text("err").count("the environment is built") == 2 or not submitted.running(), "both pods build")
        submitted.send(signal.SIGTERM)
        self.ends(submitted, 1, "Canceled")
        silent.kill()
        self.nothing_left()

    def test_pod_that_somebody_deletes_fails_the_run(self):
        submitted = self.submit(STAY)
        self.wait_until_up(submitted)
        name = next(pod["metadata"]["name"] for pod in self.target.objects("Pod") if "worker-0-1" in pod["metadata"]["name"])
        self.assertEqual(self.target.start(["kubectl", "delete", "pod", name]).wait(), 0)
        record = self.ends(submitted, 1, "Failed")
        self.assertRegex(record["reason"], f"worker 1, pod {name} on node n1: the cluster ends it")
        self.nothing_left()

    def test_pod_that_was_killed_is_named_and_not_one_that_is_ended_for_it(self):
        submitted = self.submit(STAY)
        self.wait_until_up(submitted)
        pod = next(pod for pod in self.target.objects("Pod") if "worker-0-1" in pod["metadata"]["name"])
        first = next(pid for pid in ssh_hosts.all_pids() if ssh_hosts.parent_of(pid) == int(pod["metadata"]["annotations"]["process"]))
        os.kill(first, signal.SIGKILL)  # of the pod's processes: there is no word of it any more
        record = self.ends(submitted, 1, "Failed")
        self.assertRegex(record["reason"], "worker 1 exited with code")
        self.nothing_left()

    def test_login_that_expires_is_waited_for(self):
        submitted = self.submit(COUNT)
        self.wait_until_up(submitted)
        for said, settings in (("cannot list pods", {"forbidden": ["list pods"]}), ("logged in", {"logged_in": False})):
            self.target.say(**settings)
            self.assertIn(said, self.wait_for_state("NotResponding")["reason"])
            self.target.say()
            self.wait_for_state("Running")
        self.target.say(logged_in=False)
        self.raise_flag("enough")  # its outputs wait too
        self.wait_for_state("NotResponding")
        self.target.say()
        self.ends(submitted)
        self.check_count("worker-0")
        self.nothing_left()

    def test_deletion_that_fails_is_asked_for_again(self):
        self.target.say(forbidden=["create pods/exec"], fails_once=["delete pod"])
        submitted = self.submit(STAY)
        self.wait_until_up(submitted)
        submitted.send(signal.SIGTERM)
        record = self.ends(submitted, 1, "Canceled")
        self.assertTrue(os.path.exists(os.path.join(self.target.cluster, "failed delete")))
        self.assertIn("worker-1 says goodbye\n", self.read("logs/worker-1.txt"))
        self.assertIn("worker-0 says goodbye\n", self.read("logs/worker-0.txt"))
        self.nothing_left()

    def test_run_whose_jobset_is_deleted_before_its_pods_came_fails(self):
        self.target.say(no_pods=True)
        submitted = self.submit("echo done")
        self.wait_for_state("Queued")
        self.assertEqual(self.target.start(["kubectl", "delete", "jobsets.jobset.x-k8s.io", "basin-" + self.record()["run_id"]]).wait(), 0)
        self.assertRegex(self.ends(submitted, 1, "Failed")["reason"], "2 of 2 pods will not come: what makes them was deleted")
        self.nothing_left()

    def test_missing_permission_and_namespace_are_told_and_leave_nothing(self):
        self.target.say(forbidden=["create configmaps"])
        submitted = self.submit("echo done")
        self.assertEqual(submitted.wait(), 2, submitted.text())
        self.assertRegex(submitted.text("err"), "Forbidden.*ask for that permission")
        self.target.say()
        submitted = self.submit("echo done", kubernetes={"namespace": "nowhere"})
        self.assertEqual(submitted.wait(), 2, submitted.text())
        self.assertRegex(submitted.text("err"), 'namespaces "nowhere" not found.*correct kubernetes.namespace')
        self.nothing_left()

    def test_without_exec_outputs_go_to_a_claim_or_are_named_as_lost(self):
        script = "mkdir -p outputs; echo $me >outputs/model.txt; basin metric log loss 0.5"
        record = self.ends(self.submit(script, kubernetes={"outputs": "claim:results/team"}))
        for me in ("worker-0", "worker-1"):
            with open(os.path.join(self.target.cluster, "claims/results/team", record["run_id"], me, "outputs/model.txt"), encoding="ascii") as file:
                self.assertEqual(file.read(), f"{me}\n")
        self.assertEqual(record["metrics"], {"loss": 0.5})
        self.nothing_left()
        self.target.clear()
        self.target.say(forbidden=["create pods/exec"])
        record = self.ends(self.submit(script), 1, "Completed")
        self.assertRegex(record["reason"], "outputs of worker 0 not kept: kubectl exec: .*Forbidden")
        self.nothing_left()

    def test_run_waits_for_outputs_on_a_claim_and_names_those_that_could_not_be_kept(self):
        # Its pods would have no time to copy once the run had ended.
        claim = {"outputs": "claim:results/team", "pod_overlay": {"terminationGracePeriodSeconds": 0}}
        record = self.ends(self.submit('mkdir -p outputs; for i in $(seq 3000); do echo $i >outputs/$i; done', kubernetes=claim))
        for me in ("worker-0", "worker-1"):
            self.assertEqual(len(os.listdir(os.path.join(self.target.cluster, "claims/results/team", record["run_id"], me, "outputs"))), 3000)
        self.target.clear()
        os.makedirs(os.path.join(self.target.cluster, "claims/results"))
        with open(os.path.join(self.target.cluster, "claims/results/team"), "w", encoding="ascii"):
            pass  # no folder
        record = self.ends(self.submit("mkdir -p outputs; echo $me >outputs/model.txt", kubernetes=claim), 1, "Completed")
        self.assertRegex(record["reason"], "outputs of worker 0 not kept: .*Not a directory")
        self.nothing_left()

    def test_source_may_lie_on_a_claim_or_in_the_image(self):
        on_claim, in_image = os.path.join(self.target.cluster, "claims/code/project"), os.path.join(self.target.home, "app")
        for source, place in (("claim:code/project", on_claim), (f"image:{in_image}", in_image)):
            job = self.job(f"echo from {place}", kubernetes={"source": source})
            shutil.copytree(self.target.seen(self.source), place)
            self.write("main.sh", "not what runs")
            record = self.ends(self.basin("submit", job, "--json", *self.target.submit_flags))
            with open(os.path.join(record["folder"], "logs/worker-1.txt"), encoding="utf-8") as file:
                self.assertEqual(file.read(), f"from {place}\n")
        self.nothing_left()

    def test_source_too_large_for_a_configmap_is_refused(self):
        with open(os.path.join(self.source, "weights.bin"), "wb") as file:
            file.write(os.urandom(2_000_000))
        submitted = self.submit("echo started")
        self.assertEqual(submitted.wait(), 2, submitted.text())
        self.assertRegex(submitted.text("err"), "more than a ConfigMap holds.*claim:NAME/PATH")
        self.nothing_left()

    def test_detach_returns_while_the_run_waits_in_the_queue(self):
        self.target.say(unschedulable="0/2 nodes are available")
        detached = self.submit("echo done", "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))
        self.assertEqual(run["state"], "Queued")
        os.kill(self.supervisor_of(run["run_id"]), signal.SIGKILL)
        attached = self.basin("attach", run["run_id"], "--json")  # it goes on to wait: nothing had begun
        self.target.say()
        self.ends(attached)
        self.assertEqual(self.read("logs/worker-1.txt"), "done\n")
        self.nothing_left()

    def test_doctor_finds_what_is_missing(self):
        findings = lambda code: {one["check"]: one for one in self.asks("doctor", "--target", "cluster", code=code)}
        self.assertEqual({one["state"] for one in findings(0).values()}, {"ok"})
        self.target.say(jobset=False, forbidden=["create jobs.batch", "get pods/log", "list secrets", "list services", "get pods"], namespaces=["other"])
        found = findings(1)
        for one in ("create jobs.batch", "get pods/log", "list secrets", "list services", "get pods"):
            self.assertRegex(found["permissions"]["found"], f"[ ,]{one}(,|$)")
        self.assertIn("not there", found["jobset"]["found"])
        self.assertEqual(found["namespace"]["state"], "problem")
        self.target.say(down=True)
        self.assertIn("refused", findings(1)["cluster"]["found"])
        doctor = self.basin("doctor", "--target", "cluster", "--json", PATH=self.flags)
        self.assertEqual(doctor.wait(), 1, doctor.text())
        self.assertIn("install it", doctor.text("out"))


for name in NOT_HERE:
    setattr(KubernetesCases, name, None)
