#!/usr/bin/env -S python3 -BES
"""A kubectl with a small cluster behind it, for tests: it answers in the shape of the API's objects, and really runs pods.

The cluster is the folder $KUBECTL_STAND_IN: objects/KIND/NAME.json, logs/POD, claims/NAME, and settings.json, by which a test says what
the cluster is like (SETTINGS). A pod is a process in mount, PID, UTS and IPC namespaces of its own, with an address of the loopback net,
its volumes, and the names of all pods in /etc/hosts. Its image is this machine's file system. Needs root.
"""

import base64
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

KEPT = ("PATH", "LANG", "HOME", "BASIN_TEST_MARK", "OPENBLAS_NUM_THREADS", "KUBECTL_STAND_IN")
SETTINGS = {"jobset": True, "nodes": ["n0", "n1"], "namespaces": ["default"], "context": "test", "forbidden": [], "down": False, "logged_in": True,
            "unschedulable": "", "no_image": "", "no_pods": False, "fails_once": []}  # no_pods: Jobs make none; fails_once: "delete pod"
KINDS = {"pod": "Pod", "pods": "Pod", "jobs": "Job", "jobsets.jobset.x-k8s.io": "JobSet", "services": "Service", "configmaps": "ConfigMap",
         "secrets": "Secret", "events": "Event"}
INDEX, ENDED = "batch.kubernetes.io/job-completion-index", ("Failed", "Succeeded")
now = lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
path = lambda *parts: os.path.join(os.environ["KUBECTL_STAND_IN"], *parts)
settings = lambda: {**SETTINGS, **(read(path("settings.json")) or {})}
mount = lambda *words: subprocess.run(["mount", *words], check=True, stdin=subprocess.DEVNULL)


def read(name):
    try:
        with open(name, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


class Objects:
    """What there is, and the controllers: JobSet makes Jobs, a Job makes pods, and their ends decide."""

    load = lambda self, kind, name: read(path("objects", kind, name + ".json"))
    remove = lambda self, thing: os.remove(path("objects", thing["kind"], thing["metadata"]["name"] + ".json"))

    @contextlib.contextmanager
    def locked(self):
        with open(path("lock"), "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def every(self, kind):
        names = sorted(os.listdir(path("objects", kind))) if os.path.isdir(path("objects", kind)) else []
        return [thing for name in names if name.endswith(".json") for thing in [self.load(kind, name[:-5])] if thing]

    def store(self, thing):
        name = path("objects", thing["kind"], thing["metadata"]["name"] + ".json")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name + ".part", "w", encoding="utf-8") as file:
            json.dump(thing, file)
        os.replace(name + ".part", name)

    def pods_of(self, jobs):
        return [pod for pod in self.every("Pod") if pod["metadata"]["annotations"]["job"] in [job["metadata"]["name"] for job in jobs]]

    def jobs_of(self, thing):
        return [thing] if thing["kind"] == "Job" else [job for job in self.every("Job") if job["metadata"]["annotations"]["owner"] == thing["metadata"]["name"]]

    def make(self, thing, owner=""):
        name, spec = thing["metadata"]["name"], thing.get("spec", {})
        if self.load(thing["kind"], name):
            sys.exit(f'Error from server (AlreadyExists): {thing["kind"]} "{name}" already exists')
        thing["metadata"].setdefault("annotations", {})["owner"] = owner
        self.store(thing)
        for part in spec.get("replicatedJobs", []):
            job = {"apiVersion": "batch/v1", "kind": "Job", "spec": part["template"]["spec"],
                   "metadata": {"name": f'{name}-{part["name"]}-0', "labels": {"jobset.sigs.k8s.io/replicatedjob-name": part["name"]}}}
            job["spec"]["template"]["spec"]["subdomain"] = spec["network"]["subdomain"]
            self.make(job, name)
        for index in range(spec["completions"] if thing["kind"] == "Job" and not settings()["no_pods"] else 0):
            template, number = spec["template"], int.from_bytes(os.urandom(3), "big")
            pod = {"apiVersion": "v1", "kind": "Pod", "spec": {**template["spec"], "hostname": f"{name}-{index}"},
                   "metadata": {"name": f"{name}-{index}-abcde", "namespace": "default", "annotations": {INDEX: str(index), "job": name},
                                "labels": {**template["metadata"]["labels"], INDEX: str(index)}},
                   "status": {"phase": "Pending", "podIP": f"127.{number % 200 + 50}.{number >> 8 & 255}.{number % 250 + 1}"}}
            self.store(pod)
            subprocess.Popen([sys.executable, "-BES", __file__, "--kubelet=" + pod["metadata"]["name"]], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def end_pods(self, pods, grace=None):
        for pod in [pod for pod in pods if pod["status"]["phase"] not in ENDED]:
            seconds = pod["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
            pod["metadata"].update({"deletionTimestamp": now(), "deletionGracePeriodSeconds": seconds})
            self.store(pod)

    def conclude(self, thing, kind, reason):
        self.store({**thing, "status": {"conditions": [{"type": kind, "status": "True", "reason": reason, "lastTransitionTime": now()}]}})
        if kind != "Complete":
            self.end_pods(self.pods_of(self.jobs_of(thing)))

    def reconcile(self):
        for job in [one for one in self.every("Job") if "status" not in one]:
            phases = [pod["status"]["phase"] for pod in self.pods_of([job])]
            if "Failed" in phases:
                self.conclude(job, "Failed", "BackoffLimitExceeded")
            elif phases.count("Succeeded") == job["spec"]["completions"]:
                self.conclude(job, "Complete", "CompletionsReached")
        for jobset in [one for one in self.every("JobSet") if "status" not in one]:
            ends = {job["metadata"]["labels"]["jobset.sigs.k8s.io/replicatedjob-name"]: job["status"]["conditions"][0]["type"]
                    for job in self.jobs_of(jobset) if "status" in job}
            if "Failed" in ends.values():
                self.conclude(jobset, "Failed", "FailedJobs")
            elif all(ends.get(name) for name in jobset["spec"]["successPolicy"]["targetReplicatedJobs"]):
                self.conclude(jobset, "Completed", "AllJobsCompleted")

    def delete(self, kinds, is_meant, grace):
        with self.locked():
            for thing in [thing for kind in kinds.split(",") for thing in self.every(KINDS[kind]) if is_meant(thing)]:
                jobs = self.jobs_of(thing) if thing["kind"] in ("Job", "JobSet") else []
                pods = [thing] if thing["kind"] == "Pod" else self.pods_of(jobs)
                self.end_pods(pods, grace)
                for one in [pod for pod in pods if pod["status"]["phase"] in ENDED] + jobs + [thing] * (thing["kind"] not in ("Pod", "Job")):
                    self.remove(one)


OBJECTS = Objects()


class Pod:
    __init__ = lambda self, name: setattr(self, "name", name)
    now = lambda self: OBJECTS.load("Pod", self.name)

    def is_deleted(self):
        return self.is_deletion(self.now())

    @staticmethod
    def is_deletion(pod):
        return not pod or "deletionTimestamp" in pod["metadata"]

    def update(self, state=None, spec=None, note=None, **status):
        with OBJECTS.locked():
            pod = self.now()
            if pod:
                ours = pod["spec"]["containers"][0]
                if state:
                    status["containerStatuses"] = [{"name": ours["name"], "image": ours["image"], "imageID": "", "ready": "running" in state,
                                                    "restartCount": 0, "state": state}]
                for part, more in ((pod["status"], status), (pod["spec"], spec or {}), (pod["metadata"]["annotations"], note or {})):
                    part.update(more)
                OBJECTS.store(pod)
                OBJECTS.reconcile()

    def inner_pid(self, pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return int(file.read().split()[0])

    def kubelet(self):
        image, index = self.now()["spec"]["containers"][0]["image"], int(self.now()["metadata"]["labels"][INDEX])
        node = {"nodeName": settings()["nodes"][index % len(settings()["nodes"])]}
        while (settings()["unschedulable"] or settings()["no_image"] == image) and not self.is_deleted():
            if settings()["unschedulable"]:
                self.update(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": settings()["unschedulable"]}])
            else:
                self.update({"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}}, node)
            time.sleep(0.2)
        if not self.is_deleted():
            self.run(node)
        with OBJECTS.locked():
            if self.now() and self.is_deleted():
                OBJECTS.remove(self.now())

    def begun(self, inner):
        """Whether the container's first process has made its place and become what the pod runs."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{inner}/cmdline", "rb") as file:
            return b"--container=" not in file.read()

    def run(self, node):
        self.update({"waiting": {"reason": "ContainerCreating"}}, node, conditions=[])
        with open(path("logs", self.name), "wb") as log:
            process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
                                        sys.executable, "-BES", __file__, "--container=" + self.name], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        is_running, told, kill_at = False, False, time.monotonic() + 1e9
        while process.poll() is None:
            pod, inner = self.now(), self.inner_pid(process.pid)
            if inner and not is_running and self.begun(inner):
                is_running = True
                self.update({"running": {"startedAt": now()}}, None, {"process": str(process.pid)}, phase="Running")
            if self.is_deletion(pod) and inner:
                grace = pod["metadata"]["deletionGracePeriodSeconds"] if pod else 0
                kill_at = min(kill_at, time.monotonic() + grace)
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    if time.monotonic() >= kill_at:
                        os.kill(inner, signal.SIGKILL)
                    elif is_running and not told:
                        os.kill(inner, signal.SIGTERM)
                        told = True
            time.sleep(0.05)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        self.update({"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": now(), "finishedAt": now()}},
                    phase="Failed" if code else "Succeeded")

    def write_volume(self, folder, volume):
        if "persistentVolumeClaim" in volume:
            os.makedirs(path("claims", volume["persistentVolumeClaim"]["claimName"]), exist_ok=True)
            return mount("--bind", path("claims", volume["persistentVolumeClaim"]["claimName"]), folder)
        if "emptyDir" in volume:
            return mount("-t", "tmpfs", "-o", "mode=1777,size=" + volume["emptyDir"].get("sizeLimit", "1G").rstrip("i"), "tmpfs", folder)
        thing = OBJECTS.load("ConfigMap", volume["configMap"]["name"]) if "configMap" in volume else OBJECTS.load("Secret", volume["secret"]["secretName"])
        coded = thing.get("binaryData", {}) if "configMap" in volume else thing["data"]
        contents = {**{key: base64.b64decode(text) for key, text in coded.items()}, **{key: text.encode() for key, text in thing.get("data", {}).items() if key not in coded}}
        for key in [item["key"] for item in volume.get("secret", {}).get("items", [])] or contents:
            with open(os.path.join(folder, key), "wb") as file:
                file.write(contents[key])

    def container(self):
        # A first process of a namespace does not get signals that it has no handler for: held back, they are there once it has.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        with OBJECTS.locked():  # until all pods are there
            pod, hosts = self.now(), path("logs", self.name + ".hosts")
            lines = [f'{one["status"]["podIP"]} {one["spec"]["hostname"]}.{one["spec"]["subdomain"]}\n' for one in OBJECTS.every("Pod")]
        with open(hosts, "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n" + "".join(lines))
        ours = pod["spec"]["containers"][0]
        for words in (["--bind", hosts, "/etc/hosts"], ["-t", "proc", "proc", "/proc"], ["-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm"], ["-t", "tmpfs", "tmpfs", "/run"]):
            mount(*words)
        subprocess.run(["hostname", pod["spec"]["hostname"]], check=True, stdin=subprocess.DEVNULL)
        for place in ours["volumeMounts"]:
            os.makedirs(place["mountPath"], exist_ok=True)
            self.write_volume(place["mountPath"], next(volume for volume in pod["spec"]["volumes"] if volume["name"] == place["name"]))
        environment = {**{one: os.environ[one] for one in KEPT if one in os.environ}, "JOB_COMPLETION_INDEX": pod["metadata"]["labels"][INDEX]}
        for variable in ours.get("env", []):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            value = pod["status"]["podIP"] if "fieldRef" in variable.get("valueFrom", {}) else variable.get("value")
            environment[variable["name"]] = base64.b64decode(OBJECTS.load("Secret", secret["name"])["data"][secret["key"]]).decode() if secret else value
        os.chdir("/")
        os.execvpe(ours["command"][0], ours["command"], environment)

    def logs(self):
        with open(path("logs", self.name), "rb") as log:
            over = False
            while not over:
                pod = self.now()
                over = not pod or pod["status"]["phase"] in ENDED
                sys.stdout.buffer.write(log.read())
                sys.stdout.flush()
                time.sleep(0 if over else 0.05)

    def execute(self, command):
        pod, environment = self.now() or {}, {}
        pid = pod and self.inner_pid(pod["metadata"]["annotations"].get("process"))
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/environ", encoding="utf-8") as file:
            environment = dict(line.split("=", 1) for line in file.read().split("\0") if line)
        if not environment:  # it has none, or has just ended
            sys.exit("error: cannot exec into a container in a completed pod")
        os.execvpe("nsenter", ["nsenter", "--target", str(pid), "--mount", "--pid", "--uts", "--ipc", "--", *command], environment)


def get(words, flags, is_meant):
    if words[0] == "namespace":
        return print(f"namespace/{words[1]}") if words[1] in settings()["namespaces"] else sys.exit(f'Error from server (NotFound): namespaces "{words[1]}" not found')
    items = [thing for kind in words[0].split(",") for thing in OBJECTS.every(KINDS[kind]) if is_meant(thing)]
    names = "".join(f'{thing["kind"].lower()}/{thing["metadata"]["name"]}\n' for thing in items)
    return print(names, end="") if flags["o"] == "name" else print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def main():
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words = [word for at, word in enumerate(sys.argv[1:cut]) if not word.startswith("-") and sys.argv[at] not in ("-o", "-f")]
    flags = {word.lstrip("-").partition("=")[0]: word.partition("=")[2] for word in sys.argv[1:cut] if word.startswith("-")}
    flags.update({name: sys.argv[sys.argv.index("-" + name) + 1] for name in ("o", "f") if "-" + name in sys.argv[:cut]})
    if not words:
        return Pod(flags["kubelet"]).kubelet() if "kubelet" in flags else Pod(flags["container"]).container()
    known, verb, name = settings(), words.pop(0), words[-1] if words else ""
    label, _, value = flags.get("selector", "=").partition("=")
    is_meant = lambda thing: thing["metadata"].get("labels", {}).get(label) == value if label else verb == "get" or thing["metadata"]["name"] == name
    needs = {"get": "list " + name.split(",")[0], "logs": "get pods/log", "exec": "create pods/exec", "create": "create configmaps"}.get(verb)
    if verb == "version":
        return print(json.dumps({"clientVersion": {"gitVersion": "v1.31.0"}}))
    if flags.get("context", known["context"]) != known["context"]:
        sys.exit(f'error: context "{flags["context"]}" does not exist')
    if known["down"]:
        sys.exit("The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?")
    if not known["logged_in"]:
        sys.exit("error: You must be logged in to the server (Unauthorized)")
    if verb == "auth":
        print("no" if (forbidden := "/".join([" ".join(words[1:]), *filter(None, [flags.get("subresource")])]) in known["forbidden"]) else "yes")
        sys.exit(forbidden)
    if needs in known["forbidden"]:
        sys.exit(f'Error from server (Forbidden): User "ann" cannot {needs} in API group "" in the namespace "default"')
    if f"{verb} {words[0] if words else ''}" in known["fails_once"] and not os.path.exists(path(f"failed {verb}")):
        open(path(f"failed {verb}"), "w", encoding="ascii").close()
        sys.exit("Error from server: etcdserver: request timed out")
    if verb == "create" and flags.get("namespace", "default") not in known["namespaces"]:
        sys.exit(f'Error from server (NotFound): namespaces "{flags["namespace"]}" not found')
    if verb in ("logs", "exec") and not OBJECTS.load("Pod", name if verb == "exec" else words[0]):
        sys.exit(f'Error from server (NotFound): pods "{name}" not found')
    if verb == "create":
        os.makedirs(path("logs"), exist_ok=True)
        with OBJECTS.locked():
            return [OBJECTS.make(thing) for thing in json.load(sys.stdin)["items"]]
    return {"get": lambda: print('{"gitVersion": "v1.31.0"}') if "raw" in flags else get(words, flags, is_meant), "logs": lambda: Pod(name).logs(), "exec": lambda: Pod(name).execute(sys.argv[cut + 1:]),
            "config": lambda: print("default", end=""), "api-resources": lambda: print("jobsets.jobset.x-k8s.io" if known["jobset"] else ""),
            "delete": lambda: OBJECTS.delete(words[0], is_meant, int(flags["grace-period"]) if "grace-period" in flags else None)}[verb]()


if __name__ == "__main__":
    main()
