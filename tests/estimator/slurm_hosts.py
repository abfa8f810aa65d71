"""A Slurm cluster of several nodes on one machine, made for a test and gone with it.

The nodes are the hosts of ssh_hosts.py, each with a slurmd of its own; slurmctld runs on the submitter, which so is the login
node. munged, with a key of its own, is reached by its socket from all of them. Nothing of the system's munge or Slurm is used
but the programs: their configuration, keys, sockets, logs and states lie in a folder of the test's own.

    with slurm_hosts.SlurmHosts(3) as cluster:
        code, out, err = cluster.submitter.run(["sinfo"])

On every host HOME is /shared/home, as clusters have it. `missing()` says why it cannot work here.
"""

import os
import shutil

import ssh_hosts
from ssh_hosts import processes

TOOLS = ("/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/bin/sbatch", "/usr/bin/srun")
CORES = 4  # of each node, for Slurm: more than the machine has, so that jobs fit beside one another
MEMORY_MB = 4000
HOME = "/shared/home"
# KillWait is what Slurm leaves between SIGTERM and SIGKILL, MinJobAge how long it remembers a job.
CONFIG = """ClusterName=test
SlurmctldHost=submitter({controller})
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort=6817
SlurmdPort=6818
StateSaveLocation={folder}/state
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PrologSlurmctld={folder}/prolog
MailProg=/bin/true
MpiDefault=none
KillWait=30
MinJobAge=300
InactiveLimit=0
SlurmdTimeout={node_timeout_s}
{more}
NodeName={nodes} CPUs={cores} Boards=1 SocketsPerBoard=1 CoresPerSocket={cores} ThreadsPerCore=1 RealMemory={memory} State=UNKNOWN{gres}
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE DefaultTime=60 State=UP DefMemPerCPU=100
PartitionName=short Nodes={nodes} MaxTime=1 State=UP DefMemPerCPU=100
PartitionName=urgent Nodes={nodes} MaxTime=INFINITE State=UP PriorityTier=2 DefMemPerCPU=100
PartitionName=closed Nodes={nodes} MaxTime=INFINITE State=DOWN
"""


def missing():
    """Why there can be no Slurm here; '' where there can."""
    absent = [tool for tool in TOOLS if not os.path.exists(tool)]
    return f"not installed: {' '.join(absent)} (Debian: slurm-wlm munge)" if absent else ssh_hosts.missing()


def skip_if_missing():
    reason = missing()
    if reason:
        ssh_hosts.needs.skip(reason)


class SlurmHosts(ssh_hosts.Hosts):
    """h0, h1, ... and the submitter. gpus: how many (of nothing) each node offers. node_timeout_s: after how long of silence
    Slurm takes a node for down."""

    def __init__(self, count, gpus=0, node_timeout_s=300):
        skip_if_missing()
        self._slurm = {}
        super().__init__(count)
        try:
            self._start_slurm(count, gpus, node_timeout_s)
        except BaseException:
            self.stop()
            raise

    def slurm_path(self, *parts):
        """Of the cluster's own folder, which every host sees as /shared/slurm."""
        return os.path.join(self.shared, "slurm", *parts)

    def _start_slurm(self, count, gpus, node_timeout_s):
        os.makedirs(self.slurm_path("state"))
        os.makedirs(self.slurm_path("home"), exist_ok=True)
        os.makedirs(os.path.join(self.shared, "home"))
        with open(self.slurm_path("munge.key"), "wb") as file:
            file.write(os.urandom(128))
        os.chmod(self.slurm_path("munge.key"), 0o600)
        devices = ",".join(f"/dev/tty{index}" for index in range(gpus))
        more = "GresTypes=gpu" if gpus else ""
        with open(self.slurm_path("gres.conf"), "w", encoding="ascii") as file:
            file.write(f"Name=gpu File=/dev/tty[0-{gpus - 1}]\n" if devices else "")
        with open(self.slurm_path("slurm.conf"), "w", encoding="ascii") as file:
            file.write(CONFIG.format(controller=self.submitter.address, folder="/shared/slurm", nodes=f"h[0-{count - 1}]", cores=CORES,
                                     memory=MEMORY_MB, more=more, gres=f" Gres=gpu:{gpus}" if gpus else "",
                                     node_timeout_s=node_timeout_s))
        # A job stays in CONFIGURING as long as there is a file of that name (`hold_jobs`).
        with open(self.slurm_path("prolog"), "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nwhile [ -e /shared/slurm/hold ]; do sleep 0.05; done\n")
        os.chmod(self.slurm_path("prolog"), 0o755)
        # Nothing here uses control groups, but slurmd looks for them unless it is told which.
        with open(self.slurm_path("cgroup.conf"), "w", encoding="ascii") as file:
            file.write("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        self.environment = {"SLURM_CONF": "/shared/slurm/slurm.conf", "HOME": HOME}
        # --force: the folders above are the test's, which munged does not know.
        self._service(self.submitter, "munged", ["/usr/sbin/munged", "--foreground", "--force", "--key-file=/shared/slurm/munge.key",
                                                 "--socket=/shared/slurm/munge.socket", "--pid-file=/shared/slurm/munged.pid",
                                                 "--log-file=/shared/slurm/munged.log", "--seed-file=/shared/slurm/munge.seed",
                                                 "--num-threads=2"])
        processes.wait_until(lambda: os.path.exists(self.slurm_path("munge.socket")), "munged listens")
        self._service(self.submitter, "slurmctld", ["/usr/sbin/slurmctld", "-D", "-c"])
        for host in self:
            os.makedirs(host.path("/var/spool/slurmd"), exist_ok=True)
            self.start_node(host)
        self.wait_for_nodes()
        # slurmctld has a child for its scripts.
        self.submitter.services.update(self.submitter.pids())

    def start_node(self, host):
        self._service(host, "slurmd", ["/usr/sbin/slurmd", "-D", "-N", host.name])

    def _service(self, host, name, argv):
        command = host.start(argv, cwd="/", **self.environment)
        # Not the tests' to end.
        self.commands.remove(command)
        host.services.add(command.inner)
        self._slurm[host.name, name] = command

    def service(self, host, name):
        return self._slurm[host.name, name]

    def kill_service(self, host, name):
        command = self._slurm.pop((host.name, name))
        command.kill()
        host.services.discard(command.inner)

    def wait_for_nodes(self, state="idle"):
        def ready():
            code, out, _ = self.slurm("sinfo", "-h", "-N", "-o", "%T", "-p", "main")
            return code == 0 and out.split() == [state] * len(self)
        try:
            processes.wait_until(ready, "all nodes are idle")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def hold_jobs(self):
        """Jobs that Slurm starts do not get beyond CONFIGURING, until `let_jobs_go`."""
        with open(self.slurm_path("hold"), "w", encoding="ascii"):
            pass

    def let_jobs_go(self):
        if os.path.exists(self.slurm_path("hold")):
            os.unlink(self.slurm_path("hold"))

    def slurm(self, *words):
        """(exit code, standard output, standard error) of one of Slurm's commands, on the login node."""
        return self.submitter.run(list(words), cwd=HOME, **self.environment)

    def logs(self):
        """What Slurm's programs have said, for a test that fails."""
        text = ""
        for (host, name), command in self._slurm.items():
            text += f"--- {name} of {host}\n{command.text()[-3000:]}\n"
        for path in [self.slurm_path("slurmctld.log"), *(host.path("/var/log/slurmd.log") for host in self)]:
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += f"--- {path}\n{file.read()[-3000:]}\n"
        return text

    def stop(self):
        for command in self._slurm.values():
            command.kill()
        self._slurm = {}
        super().stop()
        shutil.rmtree(self._folder, ignore_errors=True)
