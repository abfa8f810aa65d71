"""conformance.py local|ssh|slurm|podman|kubernetes: one suite that every target passes.

conformance_runs.py runs that go well, fail or are canceled · conformance_jobs.py what a job may ask for ·
conformance_faults.py what dies in the middle, and what only a network can do · conformance_mpi.py the mpi backend ·
conformance_case.py writing and watching a job · conformance_targets.py the targets · conformance_slurm.py Slurm, the
target and its own · conformance_podman.py the local target in containers · conformance_kubernetes.py Kubernetes.
"""

import sys
import unittest

import conformance_case
import conformance_faults
import conformance_jobs
import conformance_kubernetes
import conformance_mpi
import conformance_podman
import conformance_runs
import conformance_slurm
import conformance_targets

TARGETS = {"local": conformance_targets.LocalTarget, "ssh": conformance_targets.SshTarget,
           "slurm": conformance_slurm.SlurmTarget, "podman": conformance_podman.PodmanTarget,
           "kubernetes": conformance_kubernetes.KubernetesTarget}


class LocalConformance(conformance_faults.Faults, conformance_jobs.Jobs, conformance_runs.Runs):
    pass


class SshConformance(conformance_faults.SshOnly, conformance_jobs.Jobs):
    pass


class SlurmConformance(conformance_slurm.SlurmCases):
    pass


class PodmanConformance(conformance_podman.PodmanCases):
    pass


class KubernetesConformance(conformance_kubernetes.KubernetesCases):
    pass


class LocalMpi(conformance_mpi.OneWord, conformance_mpi.Mpi):
    pass


class SlurmMpi(conformance_slurm.SlurmMpiCases):
    pass


class PodmanMpi(conformance_podman.PodmanMpiCases):
    pass


class SshMpi(conformance_mpi.MpiOverSsh):
    pass


CASES = {"local": [LocalConformance, LocalMpi], "ssh": [SshConformance, SshMpi], "slurm": [SlurmConformance, SlurmMpi],
         "podman": [PodmanConformance, PodmanMpi], "kubernetes": [KubernetesConformance]}


def load_tests(loader, tests, pattern):
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, CASES[kind]))


def setUpModule():
    conformance_case.ConformanceCase.target = TARGETS[kind]()


def tearDownModule():
    if conformance_case.ConformanceCase.target:
        conformance_case.ConformanceCase.target.stop()


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    unittest.main()
