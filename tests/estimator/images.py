"""Images for podman, made from this machine's own programs: no registry is needed, and nothing of the machine's own podman is touched.

    with images.Podman() as podman:
        podman.make("localhost/basin-test:1", ["/usr/bin/python3"])
        podman.target()          # the fields of a target that runs containers by it
        podman.containers()      # names of all that there are
"""

import glob
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["BASIN_SOURCE_DIR"], "tests", "cluster"))
import needs  # noqa: E402
import processes  # noqa: E402

SHELL = ["/bin/sh", "/bin/bash", *(f"/usr/bin/{name}" for name in (
    "cat chmod cp cut date df env grep head id ls mkdir mv printf ps readlink rm sed seq setsid sleep sort stat tail touch tr true uname wc").split())]
PYTHON = "/usr/bin/python3"
# Any image with a glibc has all of it, also what nothing here needs by itself.
GLIBC = [path for name in ("dl", "m", "nss_dns", "nss_files", "pthread", "resolv", "rt", "util") for path in glob.glob(f"/lib/*-linux-gnu/lib{name}.so.*")]
# No engine of this machine is configured for a test: with these, podman runs as root also where it has no systemd and no cgroups v2.
# Its images and containers lie in a folder of the test's own.
ENGINE_OPTIONS = ["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none"]
OPTIONS = ["--cgroups=no-conmon"]


class Podman:
    """podman with a storage of its own, gone at the end with all that is in it."""

    _missing = None

    @classmethod
    def missing(cls):
        """Why it cannot run containers here; '' where it can."""
        if cls._missing is None:
            cls._missing = cls._try()
        return cls._missing

    @classmethod
    def skip_if_missing(cls):
        if cls.missing():
            needs.skip(cls.missing())

    @classmethod
    def _try(cls):
        if os.geteuid() != 0:
            return "these tests run podman as root"
        absent = [tool for tool in ("podman", "runc", "conmon", "tar") if not shutil.which(tool)]
        if absent:
            return f"not installed: {' '.join(absent)} (Debian: podman runc)"
        with cls() as podman:
            podman.make("localhost/basin-probe:1", ["/bin/sh", "/usr/bin/true"])
            done = podman.run("run", "--rm", "--network", "host", *limits(), *OPTIONS, "localhost/basin-probe:1", "/usr/bin/true")
        return "" if done.returncode == 0 else f"podman cannot run a container here: {done.stderr.strip()}"

    def __init__(self):
        # Short: paths of sockets lie below.
        self.folder = tempfile.mkdtemp(prefix="bp-", dir="/var/tmp")
        self.engine_options = ["--root", f"{self.folder}/s", "--runroot", f"{self.folder}/r", *self.storage_driver(), *ENGINE_OPTIONS]

    @staticmethod
    def storage_driver():
        with open("/proc/filesystems", encoding="ascii") as file:
            return ["--storage-driver", "overlay" if "overlay" in file.read() else "vfs"]

    def run(self, *words, **more):
        return subprocess.run(["podman", *self.engine_options, *words], capture_output=True, text=True, errors="replace", **more)

    def must(self, *words, **more):
        done = self.run(*words, **more)
        if done.returncode != 0:
            raise AssertionError(f"podman {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def make(self, name, programs, files=(), needed_by=(), folders=()):
        """An image of programs, with what they need to run, and what others need that are not in it; and of whole folders.
        files: {path: text}. Returns its id."""
        with tempfile.TemporaryDirectory(dir=self.folder) as root:
            lay_out(root, programs, dict(files), needed_by)
            for folder in folders:
                copy_tree(folder, root)
            return self.load(root, name)

    def load(self, root, name):
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            self.must("import", "--quiet", "-", name, stdin=tar.stdout)
        return self.must("image", "inspect", "--format", "{{.Id}}", name).strip()

    def target(self):
        return {"container_engine": "podman", "container_engine_options": self.engine_options, "container_options": OPTIONS}

    def containers(self):
        return self.must("ps", "--all", "--format", "{{.Names}}").split()

    def pids(self):
        """{pid: command line} of the engine's processes and of all that runs in its containers, with the machine's numbers."""
        found = {}
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
                with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
                    root = next((line for line in file if line.split()[4] == "/"), "")
            except OSError:
                continue  # it has just ended
            if pid != os.getpid() and (self.folder in command or self.folder in root) and not processes.is_zombie(pid):
                found[pid] = command
        return found

    def stop(self):
        if not os.path.exists(self.folder):
            return
        for name in self.containers():
            self.run("rm", "--force", "--ignore", "--time=0", name)
        self.run("rmi", "--all", "--force")
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounted = [line.split()[4] for line in file if self.folder in line.split()[4]]
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


def limits():
    """podman's own defaults may be above what this process can have."""
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
        most = int(file.read())
    files, tasks = resource.getrlimit(resource.RLIMIT_NOFILE), [min(limit, most) for limit in resource.getrlimit(resource.RLIMIT_NPROC)]
    return [f"--ulimit=nofile={files[0]}:{files[1]}", f"--ulimit=nproc={tasks[0]}:{tasks[1]}"]


def mpi():
    """What an image needs for ranks of mpi4py: (programs and plugins, folders), of this machine's Open MPI."""
    packages = [os.path.join("/usr/lib/python3/dist-packages", name) for name in ("mpi4py", "numpy")]
    plugins = []
    for top in (*packages, "/usr/lib/x86_64-linux-gnu/openmpi", "/usr/lib/x86_64-linux-gnu/pmix2/lib"):
        plugins += [os.path.join(place, name) for place, _, names in os.walk(top) for name in names if ".so" in name]
    folders = [*packages, "/usr/share/openmpi", "/etc/openmpi", "/usr/share/pmix", "/etc/pmix"]
    return plugins, [folder for folder in folders if os.path.exists(folder)]


def libraries(paths):
    """What the loader adds to programs and libraries, by the paths where it looks for them."""
    told = subprocess.run(["ldd", *paths], capture_output=True, text=True)
    return set(re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told.stdout, re.MULTILINE))


def lay_out(root, programs, files, needed_by=()):
    """A root folder with some of this machine's programs, and what they need. A Python program brings Python's library."""
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "tmp", "var/tmp", "root", "proc", "sys", "dev", "etc", "run", "opt"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        os.chmod(os.path.join(root, folder), 0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink("usr/" + name, os.path.join(root, name))
    wanted = set(programs)
    if PYTHON in wanted:
        version = os.path.basename(os.path.realpath(PYTHON))
        wanted |= {os.path.realpath(PYTHON), *glob.glob(f"/usr/lib/{version}/lib-dynload/*.so")}
        copy_tree(f"/usr/lib/{version}", root, ("test", "tests", "idlelib", "tkinter", "lib2to3", "__pycache__", "lib-dynload", "pydoc_data",
                                                "config-*"))
        if os.path.exists("/usr/share/python-wheels"):
            copy_tree("/usr/share/python-wheels", root)
    for path in sorted(wanted | {*GLIBC} | libraries([*sorted(wanted), *needed_by])):
        copy_file(path, root)
    files = {"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "/etc/group": "root:x:0:\n", "/etc/nsswitch.conf": "hosts: files\n", **files}
    for path, text in files.items():
        at = os.path.join(root, path.lstrip("/"))
        os.makedirs(os.path.dirname(at), exist_ok=True)
        with open(at, "w", encoding="utf-8") as file:
            file.write(text)


def copy_file(path, root):
    """Under its own name, as what it is in the end."""
    at = os.path.join(root, path.lstrip("/"))
    if os.path.lexists(at):
        return
    os.makedirs(os.path.dirname(at), exist_ok=True)
    if os.path.islink(path) and path.startswith("/usr/bin/"):
        os.symlink(os.readlink(path), at)
        copy_file(os.path.realpath(path), root)
        return
    shutil.copy(os.path.realpath(path), at)


def copy_tree(folder, root, without=()):
    shutil.copytree(folder, os.path.join(root, folder.lstrip("/")), symlinks=False, dirs_exist_ok=True, ignore_dangling_symlinks=True,
                    ignore=shutil.ignore_patterns(*without) if without else None)
