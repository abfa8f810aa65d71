"""Parameter servers on loopback, and clients of them in the test's own process."""

import glob
import signal

import built  # noqa: F401  (sets the paths)
import basin
import clusters
import processes


class ClientCase(clusters.ClusterCase):
    """Each test has its ps; what it connects is closed with it."""

    def servers(self, ps=1, workers=1, **more):
        layout = clusters.Layout(ps=ps, workers=workers)
        self.ps = self.start_all_ps(layout, **more)
        return layout

    def stop(self, ps):
        """It answers nothing any more, until SIGCONT, which comes at the test's end by itself."""
        ps.send(signal.SIGSTOP)
        self.addCleanup(ps.send, signal.SIGCONT)
        # Its threads run on for a moment, and one could still answer.
        processes.wait_until(lambda: all(self._is_stopped(path) for path in glob.glob(f'/proc/{ps.pid}/task/*/stat')),
                             'every thread has stopped')

    @staticmethod
    def _is_stopped(path):
        try:
            with open(path, encoding='utf-8', errors='replace') as file:
                return file.read().rpartition(')')[2].split()[0] == 'T'
        except (FileNotFoundError, ProcessLookupError):
            return True  # the thread has ended meanwhile

    def connect(self, layout, role='worker', index=0, **changes):
        client = basin.Client.connect(tf_config=layout.of(role, index), log=False, **changes)
        self.addCleanup(client.close)
        return client

    def alone(self, declare, **changes):
        """(client, what `declare` returned) of the only worker of one ps: `declare` fills the model."""
        client = self.connect(self.servers(), **changes)
        model = basin.Model()
        declared = declare(model)
        client.declare(model)
        return client, declared


__all__ = ['ClientCase', 'basin', 'processes']
