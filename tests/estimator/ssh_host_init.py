"""Process 1 of a host that ssh_hosts.py makes: gives it files of its own, starts its sshd, and reaps whatever loses its parent.

ssh_host_init.py CONFIG, as `unshare --mount --uts --ipc --net --pid --fork` starts it. CONFIG is JSON:
  name       host name
  root       an empty folder, where the host's files come to lie
  etc        a folder whose files take the place of the machine's in its /etc
  shared     a folder that appears as /shared
  visible    further folders that appear under their own path, read-only
  sshd       arguments of its sshd; empty: none
"ready" on standard output says that all is there. The end of standard input ends the host: with process 1 the kernel ends
every other process of the namespace, however it was started.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys


def mount(*words):
    subprocess.run(["mount", *words], check=True, stdin=subprocess.DEVNULL)


def lay_out(config):
    """The host's root: /usr, /dev, most of /etc, and what is `visible` are the machine's; everything else is its own."""
    root = config["root"]
    at = lambda *parts: os.path.join(root, *(part.lstrip("/") for part in parts))
    for folder in ("usr", "dev", "proc", "sys", "run/sshd", "root/.ssh", "tmp", "var/tmp", "var/log", "var/lib", "home", "opt", "mnt",
                   "shared", "old"):
        os.makedirs(at(folder), exist_ok=True)
    for folder in ("root", "root/.ssh"):
        os.chmod(at(folder), 0o700)
    for folder in ("tmp", "var/tmp"):
        os.chmod(at(folder), 0o1777)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.lexists("/" + name):
            os.symlink("usr/" + name, at(name))
    os.symlink("/run", at("var/run"))
    # /etc holds links to the machine's, but for what differs: copying all of it takes seconds on a busy machine.
    os.makedirs(at("machine/etc"))
    os.makedirs(at("etc"))
    differs = os.listdir(config["etc"])
    for name in differs:
        shutil.copy(os.path.join(config["etc"], name), at("etc", name))
    for name in set(os.listdir("/etc")) - set(differs):
        os.symlink("/machine/etc/" + name, at("etc", name))

    mount("--bind", "/etc", at("machine/etc"))
    mount("-o", "remount,bind,ro", at("machine/etc"))
    mount("--bind", "/usr", at("usr"))
    mount("-o", "remount,bind,ro", at("usr"))
    mount("--rbind", "/dev", at("dev"))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", at("dev/shm"))
    mount("-t", "proc", "proc", at("proc"))
    mount("-t", "sysfs", "-o", "ro", "sysfs", at("sys"))
    mount("--bind", config["shared"], at("shared"))
    for folder in config["visible"]:
        os.makedirs(at(folder), exist_ok=True)
        mount("--bind", folder, at(folder))
        mount("-o", "remount,bind,ro", at(folder))
    # A bind mount of itself: pivot_root wants its new root to be a mount.
    mount("--rbind", root, root)
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "old"], check=True, stdin=subprocess.DEVNULL)
    os.chroot(".")
    os.chdir("/")
    subprocess.run(["umount", "-l", "/old"], check=True, stdin=subprocess.DEVNULL)
    os.rmdir("/old")


def reap():
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def main():
    config = json.loads(sys.argv[1])
    subprocess.run(["hostname", config["name"]], check=True, stdin=subprocess.DEVNULL)
    lay_out(config)
    # Signals for process 1 count only where it handles them; this one only wakes the loop below.
    wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *unused: None)
    if config["sshd"]:
        os.posix_spawn("/usr/sbin/sshd", ["/usr/sbin/sshd", *config["sshd"]], {"PATH": "/usr/bin:/bin"},
                       file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)])
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            reap()
        if 0 in readable and not os.read(0, 4096):
            return


if __name__ == "__main__":
    main()
