"""Several SSH hosts on one machine, made for a test and gone with it.

Each host has a network, mount, PID, UTS and IPC namespace of its own: its own address, files (/tmp, /root, /etc, /var, /dev/shm),
host name, processes and sshd. They hang on a bridge in a namespace of the test's own, so nothing of the machine's network
is touched, and nothing can leave it. The submitter is one more such host, without sshd; there `ssh h0` works as for a user.

    with ssh_hosts.Hosts(3, bare={2}) as hosts:      # h2 does not see this build
        code, out, err = hosts.submitter.run(["ssh", "h1", "hostname"])
        hosts[1].link_down()

What lies in the machine's folder `hosts[1].files` is what h1 sees as /. All hosts see hosts.shared as /shared.
Needs root. `missing()` says why it cannot work here.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["BASIN_SOURCE_DIR"], "tests", "cluster"))
import needs  # noqa: E402
import processes  # noqa: E402

INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ssh_host_init.py")
PREFIX = "10.213.0."
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
TOOLS = ("unshare", "nsenter", "ip", "mount", "umount", "pivot_root", "hostname", "ssh", "ssh-keygen")
SSHD = "/usr/sbin/sshd"
SSHD_CONFIG = """ListenAddress {address}
HostKey /etc/basin_host_key
AuthorizedKeysFile /root/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PidFile none
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
SSH_CONFIG = """Host h*
  User root
  IdentityFile /root/.ssh/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile /root/.ssh/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""


def missing():
    """Why hosts cannot be made here; '' where they can."""
    if os.geteuid() != 0:
        return "making hosts needs root"
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=PATH)] + [one for one in [SSHD] if not os.path.exists(one)]
    if absent:
        return f"not installed: {' '.join(absent)} (Debian: iproute2 openssh-client openssh-server util-linux)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "sh", "-c",
                            "ip link add b0 type bridge && ip link add v0 type veth peer name v1"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return "" if tried.returncode == 0 else f"this kernel or container does not let us make them: {tried.stdout.strip()}"


def skip_if_missing():
    """For a test that needs hosts."""
    reason = missing()
    if reason:
        needs.skip(reason)


def new_key(path):
    """Makes a key pair and returns the public half, without its comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True, stdin=subprocess.DEVNULL)
    with open(path + ".pub", encoding="ascii") as file:
        return " ".join(file.read().split()[:2])


def parent_of(pid):
    """0 where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def child_of(process):
    """The only child of a process; None once the process is gone."""
    found = processes.wait_until(lambda: [pid for pid in all_pids() if parent_of(pid) == process.pid] or process.poll() is not None,
                                 f"process {process.pid} has a child")
    return None if found is True else found[0]


def namespace_of(pid, kind):
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class Command(processes.Process):
    """A command that runs on a host. `send` and `kill` reach the command itself, not the nsenter that brought it there."""

    def __init__(self, host, argv, env, cwd):
        words = [f"{name}={value}" for name, value in env.items()]
        # cd inside: nsenter --wd would be looked up before the mount namespace is entered.
        super().__init__(["nsenter", "--target", host.pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--",
                          "env", "-i", *words, "sh", "-c", 'cd "$0" && exec "$@"', cwd, *argv])
        self.inner = child_of(self._process)

    def send(self, number):
        if self.inner and self.running():
            os.kill(self.inner, number)

    def kill(self):
        if self.inner and self.running():
            try:
                os.kill(self.inner, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself
        super().kill()


class Host:
    """One host. pid: its process 1 as the machine numbers it."""

    def __init__(self, hosts, name, address, bare, sshd):
        self.name, self.address, self._hosts = name, address, hosts
        self.files = hosts.path(name, "root")
        etc = hosts.path(name, "etc")
        for folder in (self.files, etc):
            os.makedirs(folder)
        self._write_etc(etc)
        arguments = []
        if sshd:
            self.key = new_key(os.path.join(etc, "basin_host_key"))
            arguments = ["-D", "-E", "/var/log/sshd.log", "-f", "/etc/basin_sshd_config"]
            with open(os.path.join(etc, "basin_sshd_config"), "w", encoding="ascii") as file:
                file.write(SSHD_CONFIG.format(address=address))
                if not bare:
                    file.write(f"SetEnv PATH={os.environ['BASIN_BINARY_DIR']}/bin:{PATH}\n")
        visible = [] if bare else sorted({os.environ["BASIN_SOURCE_DIR"], os.environ["BASIN_BINARY_DIR"]})
        config = {"name": name, "root": self.files, "etc": etc, "shared": hosts.shared, "visible": visible, "sshd": arguments}
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child",
             "sh", "-c", 'read -r go && exec "$@"', "sh", sys.executable, "-B", INIT, json.dumps(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = child_of(self._process)
        self.pid_namespace = namespace_of(self.pid, "pid")
        # The address first: sshd binds it.
        hosts.connect(self)
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self._has_sshd, self.sshd_pid = sshd, None
        self.services = set()  # pids of what belongs to the host as its sshd does

    def wait_until_ready(self):
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError(f"host {self.name} did not start; what it says stands above")
        if self._has_sshd:
            self.sshd_pid = processes.wait_until(self._find_sshd, f"sshd of {self.name} listens")

    def _write_etc(self, folder):
        def write(name, text):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        with open("/etc/passwd", encoding="utf-8") as file:
            write("passwd", re.sub(r"^root:.*$", "root:x:0:0:root:/root:/bin/bash", file.read(), flags=re.MULTILINE))
        # Neither locked nor with a password: a key is the only way in.
        write("shadow", "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n")
        os.chmod(os.path.join(folder, "shadow"), 0o600)
        write("hostname", self.name + "\n")
        write("hosts", "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self._hosts.addresses.items()))
        write("resolv.conf", "")
        write("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")

    def _find_sshd(self):
        with open(f"/proc/{self.pid}/net/tcp", encoding="ascii") as table:
            listening = any(line.split()[3] == "0A" and line.split()[1].endswith(":0016") for line in table.readlines()[1:])
        return listening and next((pid for pid in all_pids() if parent_of(pid) == self.pid and "sshd" in command_line(pid)), None)

    def path(self, *parts):
        """Where the machine sees a file of this host: path('/root/a') for its /root/a."""
        return os.path.join(self.files, *(part.lstrip("/") for part in parts))

    def write(self, path, text, mode=0o644):
        """Makes a file of this host, with its folders."""
        os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
        with open(self.path(path), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(path), mode)

    def start(self, argv, cwd="/root", **environment):
        """Starts a command as if somebody had typed it there. Ends with the host, at the latest."""
        env = {"HOME": "/root", "USER": "root", "SHELL": "/bin/bash", "PATH": PATH, "LANG": "C.UTF-8", **environment}
        command = Command(self, argv, env, cwd)
        self._hosts.commands.append(command)
        return command

    def run(self, argv, cwd="/root", deadline_s=processes.DEADLINE_S, **environment):
        """(exit code, standard output, standard error)."""
        with self.start(argv, cwd, **environment) as command:
            code = command.wait(deadline_s)
            return code, command.text("out"), command.text("err")

    def pids(self):
        """{pid: command line} of what lives there besides process 1, its services and zombies. Pids are the machine's."""
        own = {self.pid, self.sshd_pid, *self.services}
        return {pid: command_line(pid) for pid in all_pids() if pid not in own and namespace_of(pid, "pid") == self.pid_namespace
                and not processes.is_zombie(pid)}

    def wait_until_idle(self, deadline_s=processes.DEADLINE_S):
        """Nothing of any run is left there: waits until there are no other processes, and fails with those that stay."""
        try:
            processes.wait_until(lambda: not self.pids(), "", deadline_s)
        except AssertionError:
            left = self.pids()
            if left:
                raise AssertionError(f"{self.name} still has, after {deadline_s} s: {left}") from None

    def link_down(self):
        """From now on nothing reaches the host or leaves it; connections stay open, as when a cable is pulled."""
        self._hosts.ip("link", "set", self.name, "down")

    def link_up(self):
        self._hosts.ip("link", "set", self.name, "up")

    def bytes_sent_and_received(self):
        """Over its network interface, since it was made. (Its own loopback does not count.)"""
        stats = json.loads(self._hosts.ip("-s", "-j", "link", "show", self.name))[0]["stats64"]
        return stats["rx"]["bytes"], stats["tx"]["bytes"]

    def begin_to_end(self):
        self._process.stdin.close()

    def wait_until_ended(self):
        self._process.wait(processes.DEADLINE_S)
        self._process.stdout.close()


class Hosts:
    """h0, h1, ... and the submitter. bare: the indices of hosts that do not see this build; the others have its programs on PATH."""

    def __init__(self, count, bare=()):
        skip_if_missing()
        self._folder = tempfile.mkdtemp(prefix="basin-hosts-")
        self.commands, self._hosts, self.submitter, self._bridge = [], [], None, None
        names = [f"h{index}" for index in range(count)]
        self.addresses = {name: PREFIX + str(10 + index) for index, name in enumerate([*names, "submitter"])}
        self.shared = self.path("shared")
        os.makedirs(self.shared)
        try:
            self._start_bridge()
            for index, name in enumerate(names):
                self._hosts.append(Host(self, name, self.addresses[name], index in bare, sshd=True))
            self.submitter = Host(self, "submitter", self.addresses["submitter"], bare=False, sshd=False)
            for host in [*self._hosts, self.submitter]:
                host.wait_until_ready()
            self._let_the_submitter_in()
        except BaseException:
            self.stop()
            raise

    def _start_bridge(self):
        self._bridge = subprocess.Popen(["unshare", "--net", "--fork", "--kill-child", "cat"], stdin=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL)
        self._bridge_pid = child_of(self._bridge)
        self._bridge_namespace = namespace_of(self._bridge_pid, "net")
        self.ip("link", "add", "bridge", "type", "bridge")
        self.ip("link", "set", "bridge", "up")

    def _let_the_submitter_in(self):
        own = self.submitter
        public = new_key(own.path("/root/.ssh/id_ed25519"))
        own.write("/root/.ssh/config", SSH_CONFIG, 0o600)
        for host in self._hosts:
            host.write("/root/.ssh/authorized_keys", public + "\n", 0o600)
        self.know_keys()

    def know_keys(self, instead=None):
        """Writes the submitter's known_hosts. instead: {index: another public key}, as after somebody has taken a host's place."""
        keys = {index: host.key for index, host in enumerate(self._hosts)} | (instead or {})
        self.submitter.write("/root/.ssh/known_hosts", "".join(
            f"{self._hosts[index].name},{self._hosts[index].address} {key}\n" for index, key in keys.items()), 0o600)

    def another_key(self):
        """A public key that belongs to no host."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            return new_key(os.path.join(folder, "key"))

    def ip(self, *words):
        """iproute2 in the bridge's namespace; host N's cable ends there as interface hN."""
        done = subprocess.run(["nsenter", "--target", str(self._bridge_pid), "--net", "ip", *words], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise AssertionError(f"ip {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def connect(self, host):
        self.ip("link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self.ip("link", "set", host.name, "master", "bridge", "up")
        for words in (["link", "set", "lo", "up"], ["addr", "add", host.address + "/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            subprocess.run(["nsenter", "--target", str(host.pid), "--net", "ip", *words], check=True, stdin=subprocess.DEVNULL)

    def __getitem__(self, index):
        return self._hosts[index]

    def __len__(self):
        return len(self._hosts)

    def __iter__(self):
        return iter(self._hosts)

    def path(self, *parts):
        return os.path.join(self._folder, *parts)

    def everything(self):
        """Pids of all that lives in any of the namespaces, process 1 of each included."""
        spaces = {host.pid_namespace for host in [*self._hosts, self.submitter] if host}
        return [pid for pid in all_pids() if not processes.is_zombie(pid) and
                (namespace_of(pid, "pid") in spaces or (self._bridge and namespace_of(pid, "net") == self._bridge_namespace))]

    def stop(self):
        """Ends the hosts with all their processes and removes their files. May be called twice."""
        for command in self.commands:
            command.kill()
        self.commands = []
        made = [host for host in [*self._hosts, self.submitter] if host]
        for host in made:
            host.begin_to_end()
        for host in made:
            host.wait_until_ended()
        if self._bridge:
            self._bridge.stdin.close()
            self._bridge.wait(processes.DEADLINE_S)
        processes.wait_until(lambda: not self.everything(), "no process of the hosts is left")
        self._hosts, self.submitter, self._bridge = [], None, None
        # The mounts were the hosts' own and went with them: what lies here is files alone.
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()
