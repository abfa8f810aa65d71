"""The local target with every script in a container, by podman on an image that is made for it."""

import json
import os

import conformance_faults
import conformance_jobs
import conformance_mpi
import conformance_runs
import conformance_targets
import images


class PodmanTarget(conformance_targets.LocalTarget):
    kind = "podman"
    submit_flags = ["--target", "contained"]
    image = "localhost/basin-conformance:1"

    def __init__(self):
        images.Podman.skip_if_missing()
        super().__init__()
        self.podman = images.Podman()
        try:
            # basin itself is the node's, and finds its libraries in the image.
            plugins, folders = images.mpi()
            self.podman.make(self.image, [*images.SHELL, images.PYTHON, *plugins], needed_by=[conformance_targets.BASIN], folders=folders)
            path = os.path.join(self.home, ".config/basin/targets.yaml")
            os.makedirs(os.path.dirname(path))
            target = {"kind": "local", **self.podman.target()}
            # What tests and tasks see together is no input of the jobs.
            target["container_options"] = [*images.OPTIONS, f"--volume={self.shared}:{self.shared}"]
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"contained": target}, file)
        except BaseException:
            self.podman.stop()
            raise

    def pids(self):
        # What runs in containers has not the submitter's environment.
        return {**super().pids(), **self.podman.pids()}

    def clear(self):
        super().clear()
        for name in self.podman.containers():
            self.podman.run("rm", "--force", "--ignore", "--time=0", name)

    def stop(self):
        super().stop()
        self.podman.stop()


class NoContainerLeft:
    def nothing_left(self, *words, **more):
        super().nothing_left(*words, **more)
        self.assertEqual(self.target.podman.containers(), [])


class PodmanMpiCases(NoContainerLeft, conformance_mpi.Mpi):
    """mpirun is on the node, each rank in a container."""


class PodmanCases(NoContainerLeft, conformance_faults.Faults, conformance_jobs.Jobs, conformance_runs.Runs):
    def test_missing_interpreter_is_named_with_its_node(self):
        # The agent does not look into images: the image's shell says it, in the task's log.
        self.write("main.run", "#!/not/there/lua\n", 0o755)
        submitted = self.submit(entry_script="main.run")
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertRegex(submitted.text("err"), "worker [01] exited with code 127")
        self.assertRegex(submitted.text("err"), "main.run: not found")
        self.nothing_left()
