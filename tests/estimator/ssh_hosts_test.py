"""The hosts of ssh_hosts.py are what the tests on them take them for."""

import os
import signal
import socket
import sys
import unittest

import ssh_hosts

processes = ssh_hosts.processes
QUICK = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={processes.DEADLINE_S:.0f}")


class SshHosts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hosts = ssh_hosts.Hosts(3, bare={2})
        cls.addClassCleanup(cls.hosts.stop)

    def ssh(self, host, *words):
        return self.hosts.submitter.run(["ssh", *QUICK, host, *words])

    def test_each_answers_by_its_name(self):
        for name in ("h0", "h1", "h2"):
            self.assertEqual(self.ssh(name, "hostname; cat /etc/hostname; echo $HOME"), (0, f"{name}\n{name}\n/root", ""))
        self.assertEqual(self.hosts.submitter.run(["hostname"])[1], "submitter")
        self.assertEqual(self.hosts[0].run(["getent", "hosts", "submitter"])[1].split()[0], self.hosts.addresses["submitter"])
        self.assertNotEqual(socket.gethostname(), "h0")

    def test_files_are_apart(self):
        folders = ("/tmp", "/root", "/dev/shm", "/var/tmp", "/etc")
        for folder in folders:
            self.assertEqual(self.ssh("h0", f"echo h0 > {folder}/mine")[0], 0)
            self.assertFalse(os.path.exists(f"{folder}/mine"))
        for name in ("h1", "h2"):
            self.assertEqual(self.ssh(name, " ".join(f"[ ! -e {folder}/mine ] &&" for folder in folders) + " echo apart")[1], "apart")
        self.assertEqual(self.hosts.submitter.run(["ls", "/tmp"])[1], "")
        with open(self.hosts[0].path("/root/mine")) as file:
            self.assertEqual(file.read(), "h0\n")

    def test_shared_folder_is_shared(self):
        self.assertEqual(self.ssh("h0", "echo all > /shared/note")[0], 0)
        self.assertEqual(self.ssh("h2", "cat /shared/note")[1], "all")

    def test_bare_host_has_no_basin(self):
        basin = processes.binary("basin")
        self.assertEqual(self.ssh("h1", "command -v basin && basin --version")[1].splitlines()[0], basin)
        self.assertEqual(self.ssh("h2", f"ls {os.environ['BASIN_BINARY_DIR']} {os.environ['BASIN_SOURCE_DIR']}")[0], 2)
        self.assertEqual(self.ssh("h2", "command -v basin")[1], "")

    def test_the_machines_files_cannot_be_changed_from_a_host(self):
        for folder in (os.environ["BASIN_BINARY_DIR"], "/usr/local", "/machine/etc"):
            code, _, err = self.ssh("h0", f"touch {folder}/from-h0")
            self.assertNotEqual(code, 0)
            self.assertIn("Read-only file system", err)

    def test_traffic_is_counted_on_the_host_that_had_it(self):
        sent, _ = self.hosts[1].bytes_sent_and_received()
        before = self.hosts[0].bytes_sent_and_received()
        code, out, _ = self.ssh("h1", "head -c 1000000 /dev/zero | tr '\\0' x")
        self.assertEqual((code, len(out)), (0, 1000000))
        self.assertGreater(self.hosts[1].bytes_sent_and_received()[0] - sent, 1000000)
        self.assertLess(sum(self.hosts[0].bytes_sent_and_received()) - sum(before), 100000)

    def test_link_down_stalls_and_link_up_goes_on(self):
        count = self.hosts[1].path("/root/count")

        def counted():
            with open(count, encoding="ascii") as file:
                return int(file.read())

        # Each number is told to this machine's disk before it goes over the cable.
        script = "i=0; while :; do i=$((i+1)); echo $i >count.part; mv count.part count; echo line $i; sleep 0.05; done"
        with self.hosts.submitter.start(["ssh", *QUICK, "h1", script]) as stream:
            stream.wait_for_line("line 3$")
            self.hosts[1].link_down()
            try:
                sent = counted()
                self.assertNotEqual(self.hosts.submitter.run(["ssh", "-o", "ConnectTimeout=1", "h1", "true"])[0], 0)
                processes.wait_until(lambda: counted() > sent + 20, "h1 goes on to count")
                self.assertLessEqual(int(stream.text("out").split()[-1]), sent)
                self.assertTrue(stream.running())
                self.assertEqual(self.ssh("h0", "echo others live")[1], "others live")
            finally:
                self.hosts[1].link_up()
            stream.wait_for_line(f"line {sent + 20}$")

    def test_banner_of_the_shells_rc_file_shows_up_in_the_output(self):
        self.hosts[1].write("/root/.bashrc", "echo welcome to $(hostname)\n")
        self.addCleanup(os.remove, self.hosts[1].path("/root/.bashrc"))
        self.assertEqual(self.ssh("h1", "echo done")[1], "welcome to h1\ndone")

    def test_wrong_host_key_is_refused(self):
        self.addCleanup(self.hosts.know_keys)
        self.hosts.know_keys({1: self.hosts.another_key()})
        code, out, err = self.ssh("h1", "echo in")
        self.assertEqual((code, out), (255, ""))
        self.assertIn("Host key verification failed", err)
        self.assertEqual(self.ssh("h0", "echo in")[1], "in")

    def test_processes_are_seen_and_signalled_by_host(self):
        with self.hosts.submitter.start(["ssh", *QUICK, "h0", "exec sleep 4321"]) as ssh:
            pid = processes.wait_until(lambda: next((pid for pid, text in self.hosts[0].pids().items() if text == "sleep 4321"), None),
                                       "h0 runs sleep")
            self.assertEqual([text for text in self.hosts[1].pids().values() if text == "sleep 4321"], [])
            os.kill(pid, signal.SIGTERM)
            self.assertNotEqual(ssh.wait(), 0)
        self.hosts[0].wait_until_idle()

    def test_signals_reach_the_command_itself(self):
        with self.hosts.submitter.start(["bash", "-c", "trap 'echo stopped; exit 7' INT; echo up; while :; do sleep 0.05; done"]) as command:
            command.wait_for_line("up")
            command.send(signal.SIGINT)
            self.assertEqual(command.wait(), 7)
            self.assertEqual(command.text(), "up\nstopped")

    def test_what_stays_behind_is_named(self):
        self.assertEqual(self.ssh("h2", "setsid sleep 8765 >/dev/null 2>&1 </dev/null &")[0], 0)
        processes.wait_until(lambda: "sleep 8765" in self.hosts[2].pids().values(), "the daemon runs")
        with self.assertRaisesRegex(AssertionError, "h2 still has, after 0.5 s: .*sleep 8765"):
            self.hosts[2].wait_until_idle(deadline_s=0.5)
        for pid, text in self.hosts[2].pids().items():
            if text == "sleep 8765":
                os.kill(pid, signal.SIGKILL)
        self.hosts[2].wait_until_idle()

    def test_nothing_leaves_this_machine(self):
        for host in (self.hosts[0], self.hosts.submitter):
            self.assertEqual(host.run(["ip", "route", "show", "default"])[:2], (0, ""))
            self.assertNotEqual(host.run(["getent", "hosts", "example.com"])[0], 0)


# Makes hosts, starts a daemon on one of them, and says who lives there; then it waits to be killed.
MAKE_AND_WAIT = """
import sys, time
import ssh_hosts
hosts = ssh_hosts.Hosts(1)
hosts.submitter.run(["ssh", "h0", "setsid sleep 999 >/dev/null 2>&1 </dev/null &"])
print(hosts._folder, *hosts.everything(), flush=True)
time.sleep(999)
"""


class End(unittest.TestCase):
    def setUp(self):
        ssh_hosts.skip_if_missing()

    def test_stop_leaves_nothing(self):
        interfaces = set(os.listdir("/sys/class/net"))
        with ssh_hosts.Hosts(2) as hosts:
            folder = hosts.path()
            self.assertEqual(hosts.submitter.run(["ssh", "h1", "nohup sleep 999 >/dev/null 2>&1 </dev/null & setsid sleep 999 "
                                                  ">/dev/null 2>&1 </dev/null &"])[0], 0)
            pids = hosts.everything()
            self.assertGreaterEqual(len(pids), 8)
            hosts.submitter.start(["sleep", "999"])
            self.assertEqual(set(os.listdir("/sys/class/net")), interfaces)
        self.assertEqual([pid for pid in pids if processes.is_alive(pid)], [])
        self.assertFalse(os.path.exists(folder))
        with open("/proc/mounts") as mounts:
            self.assertNotIn(folder, mounts.read())

    def test_hosts_end_with_a_test_that_is_killed(self):
        with processes.Process([sys.executable, "-B", "-c", MAKE_AND_WAIT], env=os.environ,
                               cwd=os.path.dirname(os.path.abspath(__file__))) as test:
            folder, *pids = test.wait_for_line("basin-hosts-").split()
            self.assertGreaterEqual(len(pids), 6)
            test.kill()
        processes.wait_until(lambda: not any(processes.is_alive(int(pid)) for pid in pids), "the hosts have ended")
        ssh_hosts.shutil.rmtree(folder)


if __name__ == "__main__":
    unittest.main()
