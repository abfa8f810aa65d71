"""Starting programs as the ranks of a real mpirun, for tests."""

import os
import shutil
import tempfile
import unittest

import clusters
import needs
import processes

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def there():
    """mpirun, and a build that was made with MPI."""
    module = os.path.join(os.environ["BASIN_BINARY_DIR"], "lib", "libbasin_mpi.so")
    return shutil.which("mpirun") is not None and os.path.exists(module)


@needs.needs(there, "mpirun or libbasin_mpi.so is not there (Debian: openmpi-bin, libopenmpi-dev)")
class RanksCase(clusters.ClusterCase):
    def setUp(self):
        super().setUp()
        # Its session folder holds Unix sockets, whose paths must be short; as root it wants to be told that it may.
        session = tempfile.TemporaryDirectory(prefix="mpi", dir="/tmp")
        self.addCleanup(session.cleanup)
        self.environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", TMPDIR=session.name,
                                OMPI_MCA_rmaps_base_oversubscribe="1", OPENBLAS_NUM_THREADS="1",
                                OMPI_MCA_orte_base_help_aggregate="1")
        for name in list(self.environment):  # a test that runs within a launch of its own
            if name.startswith(("OMPI_COMM_", "PMI_", "PMIX_", "SLURM_")):
                del self.environment[name]

    def data(self):
        data = self.path("data")
        if not os.path.isdir(data):
            os.mkdir(data)
            clusters.write_data(data)
        return data

    def mpirun(self, ranks, argv, **environment):
        return self.start(["mpirun", "--bind-to", "none", "-np", ranks, *argv], **environment)

    def train(self, ranks, *flags, worker=None, **environment):
        """basin-worker --backend mpi on the little data set, unless the flags name another."""
        argv = [worker or processes.binary("basin-worker"), "--backend", "mpi", *flags]
        if "--data" not in flags:
            argv += ["--data", self.data(), "--hidden", "32", "--batch-size", "16"]
        return self.mpirun(ranks, argv, **environment)


def main():
    unittest.main()
