"""`basin doctor`, tried on machines that have what it looks for: three SSH hosts, and this machine."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import ssh_hosts

processes = ssh_hosts.processes
BASIN = processes.binary("basin")
TARGETS = """lab:
  kind: ssh
  nodes: [h0, h1, h2]
  shared_folders: [/shared]
private:
  kind: ssh
  nodes: [h0, h1, h2]
  shared_folders: [/opt]
"""
# h1 lets nobody in to port 2223, and does not say so.
DROP = "add table inet doctor; add chain inet doctor in { type filter hook input priority 0; }; add rule inet doctor in tcp dport 2223 drop"


class Doctor(unittest.TestCase):
    def bad(self, findings, node=None):
        """{(state, node, check)} of what is not ok. What depends on the machine that runs the test is left out."""
        for one in findings:
            self.assertEqual(list(one), ["node", "check", "state", "found", "fix"])
            self.assertEqual(one["fix"] == "", one["state"] == "ok", one)
        return {(one["state"], one["node"], one["check"]) for one in findings
                if one["state"] != "ok" and one["check"] not in ("gpu", "shm", "files")}

    def the(self, findings, node, check, state=None):
        found = [one for one in findings if (one["node"], one["check"]) == (node, check) and state in (None, one["state"])]
        self.assertEqual(len(found), 1, findings)
        return found[0]


class OnSshHosts(Doctor):
    @classmethod
    def setUpClass(cls):
        cls.hosts = ssh_hosts.Hosts(3)
        cls.addClassCleanup(cls.hosts.stop)
        cls.hosts.submitter.write("/root/targets.yaml", TARGETS)

    def tearDown(self):
        # Nothing of it stays on any machine.
        for host in [*self.hosts, self.hosts.submitter]:
            for command in self.hosts.commands:
                command.kill()
            host.wait_until_idle()
            self.assertEqual([name for folder in ("/opt", "/tmp") for name in os.listdir(host.path(folder))], [])
        self.assertEqual(os.listdir(self.hosts.shared), [])
        self.hosts.commands = []

    def asks(self, *words, code=0, target="lab"):
        ended, out, err = self.hosts.submitter.run([BASIN, "doctor", *(["--target", target] if target else []), "--json", *words])
        self.assertEqual(ended, code, out + err)
        return json.loads(out)

    def read(self, host, path):
        with open(host.path(path), encoding="utf-8") as file:
            return file.read()

    def test_all_is_well(self):
        findings = self.asks()
        self.assertEqual(self.bad(findings), set())
        checks = ["ssh", "basin", "gpu", "shm", "files", "addresses", "ports", "reach", "shared"]
        self.assertEqual([(one["node"], one["check"]) for one in findings],
                         [(node, check) for node in ("h0", "h1", "h2") for check in checks])
        self.assertEqual(self.the(findings, "h1", "reach")["found"], "its ports answer h0, h2")
        self.assertEqual(self.the(findings, "h2", "shared")["found"], "/shared: the file of h0 is there")
        # Nor does it keep the ports from whoever wants them next.
        self.assertEqual(self.bad(self.asks()), set())
        self.assertIn("2222-2225 can be had", self.the(findings, "h0", "ports")["found"])

    def test_for_people(self):
        code, out, _ = self.hosts.submitter.run([BASIN, "doctor", "--hosts", "h0,h1"])
        self.assertEqual(code, 0, out)
        lines = out.splitlines()
        self.assertRegex(lines[0], "^ok       h0  ssh        it is reached, and calls itself h0$")
        self.assertRegex(lines[-1], "^2 nodes: [0-9]+ ok, [0-9]+ warnings?, 0 problems$")
        self.assertEqual(len({line.index(line.split()[2]) for line in lines[:-1]}), 1, out)

    def test_debians_own_name(self):
        before = self.read(self.hosts[1], "/etc/hosts")
        self.addCleanup(self.hosts[1].write, "/etc/hosts", before)
        self.hosts[1].write("/etc/hosts", "127.0.1.1 h1\n" + before.replace(f"{self.hosts.addresses['h1']} h1\n", ""))
        findings = self.asks()
        self.assertEqual(self.bad(findings), {("warning", "h1", "addresses")})
        self.assertIn("h1 leads to 127.0.1.1", self.the(findings, "h1", "addresses")["found"])
        self.assertIn("/etc/hosts", self.the(findings, "h1", "addresses")["fix"])
        self.assertEqual(self.the(findings, "h1", "reach")["found"], "its ports answer h0, h2")
        # Another's name there is worse: whoever connects meets itself.
        self.hosts[1].write("/etc/hosts", "127.0.1.1 h0\n" + before.replace(f"{self.hosts.addresses['h0']} h0\n", ""))
        findings = self.asks(code=1)
        self.assertEqual(self.bad(findings), {("problem", "h1", "addresses")})
        self.assertEqual(self.the(findings, "h1", "addresses")["found"], "h0 leads to 127.0.1.1, which is this node itself, not h0")

    def test_name_that_leads_to_another_machine(self):
        before = self.read(self.hosts[2], "/etc/hosts")
        self.addCleanup(self.hosts[2].write, "/etc/hosts", before)
        self.hosts[2].write("/etc/hosts", before.replace(self.hosts.addresses["h0"] + " h0\n", self.hosts.addresses["h1"] + " h0\n"))
        findings = self.asks(code=1)
        self.assertEqual(self.bad(findings), {("problem", "h0", "reach")})
        self.assertIn("another program answers there", self.the(findings, "h0", "reach")["found"])
        self.assertIn("see where h0 leads on h2", self.the(findings, "h0", "reach")["fix"])

    def test_firewall(self):
        nft = ["nsenter", "--target", str(self.hosts[1].pid), "--net", "nft"]
        tried = subprocess.run([*nft, DROP], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if tried.returncode != 0:
            ssh_hosts.needs.skip(f"no firewall can be made here: {tried.stderr}")
        self.addCleanup(subprocess.run, [*nft, "delete table inet doctor"], check=True, stdin=subprocess.DEVNULL)
        findings = self.asks(code=1)
        self.assertEqual(self.bad(findings), {("problem", "h1", "reach")})
        reach = [one for one in findings if (one["node"], one["check"]) == ("h1", "reach")]
        address = self.hosts.addresses["h1"]
        self.assertEqual([one["found"] for one in reach],
                         [f"from {name}, {address} port 2223: no answer within 3 s" for name in ("h0", "h2")])
        self.assertIn("open tcp ports 2223 and 20000-29999 on h1", reach[0]["fix"])

    def test_port_that_is_taken(self):
        with processes.listen_on(2222, self.hosts[2].start):
            findings = self.asks()
        self.assertEqual(self.bad(findings), {("warning", "h2", "ports")})
        self.assertIn("2222 cannot be had, 2223-2225, 20000 instead", self.the(findings, "h2", "ports")["found"])
        self.assertEqual(self.the(findings, "h2", "reach")["found"], "its ports answer h0, h1")

    def test_folder_that_is_not_shared(self):
        findings = self.asks(target="private", code=1)
        self.assertEqual(self.bad(findings), {("problem", "h1", "shared"), ("problem", "h2", "shared")})
        self.assertIn("/opt: the file that h0 wrote is not seen", self.the(findings, "h1", "shared")["found"])
        os.rmdir(self.hosts[0].path("/opt"))
        try:
            findings = self.asks(target="private", code=1)
        finally:
            os.mkdir(self.hosts[0].path("/opt"))
        self.assertEqual(self.bad(findings), {("problem", "h0", "shared"), ("problem", "h2", "shared")})
        self.assertEqual(self.the(findings, "h0", "shared")["found"], "/opt: No such file or directory")

    def test_killed_doctor_leaves_nothing(self):
        doctor = self.hosts.submitter.start([BASIN, "doctor", "--target", "private"])
        # The others look for it in their own /opt, for some seconds.
        processes.wait_until(lambda: os.listdir(self.hosts[0].path("/opt")), "h0 has written its file")
        doctor.kill()
        for host in [*self.hosts, self.hosts.submitter]:
            host.wait_until_idle()
        self.assertEqual(self.bad(self.asks()), set())

    def test_wrong_host_key(self):
        self.addCleanup(self.hosts.know_keys)
        self.hosts.know_keys({1: self.hosts.another_key()})
        findings = self.asks(code=1)
        self.assertEqual(self.bad(findings), {("problem", "h1", "ssh")})
        self.assertIn("Host key verification failed", self.the(findings, "h1", "ssh")["found"])
        self.assertIn("ssh-keygen -R h1", self.the(findings, "h1", "ssh")["fix"])
        self.assertEqual(self.the(findings, "h0", "reach")["found"], "its ports answer h2")

    def test_no_way_in(self):
        keys = self.hosts[0].path("/root/.ssh/authorized_keys")
        os.rename(keys, keys + ".away")
        self.addCleanup(os.rename, keys + ".away", keys)
        findings = self.asks("--hosts", "h0,nowhere", target="", code=1)
        self.assertEqual(self.bad(findings), {("problem", "h0", "ssh"), ("problem", "nowhere", "ssh")})
        self.assertIn("Permission denied", self.the(findings, "h0", "ssh")["found"])
        self.assertIn("ssh-add", self.the(findings, "h0", "ssh")["fix"])
        self.assertIn("Could not resolve hostname", self.the(findings, "nowhere", "ssh")["found"])

    def test_cable_is_pulled(self):
        self.hosts[2].link_down()
        self.addCleanup(self.hosts[2].link_up)
        findings = self.asks(code=1)
        self.assertEqual(self.bad(findings), {("problem", "h2", "ssh")})
        self.assertRegex(self.the(findings, "h2", "ssh")["found"], "No route to host|Connection timed out")
        self.assertIn("is it up", self.the(findings, "h2", "ssh")["fix"])
        self.assertEqual(self.the(findings, "h0", "reach")["found"], "its ports answer h1")

    def test_programs_that_are_not_there(self):
        self.hosts.submitter.write("/root/wrong.yaml", "wrong:\n  kind: ssh\n  nodes: [h0]\n  programs: /nowhere/bin\n")
        findings = self.asks("--targets", "wrong.yaml", target="wrong", code=1)
        self.assertEqual(self.bad(findings), {("problem", "h0", "basin")})
        self.assertIn("/nowhere/bin/basin is not there", self.the(findings, "h0", "basin")["found"])
        self.assertIn("correct programs of the target", self.the(findings, "h0", "basin")["fix"])

    def test_shells_greeting_is_skipped(self):
        self.hosts[1].write("/root/.bashrc", "echo welcome to $(hostname)\nprintf 'mind the gap '\n")
        self.addCleanup(os.remove, self.hosts[1].path("/root/.bashrc"))
        self.assertEqual(self.bad(self.asks()), set())

    def test_needs_of_a_job(self):
        self.hosts[0].write("/root/words", "a b\n")
        self.addCleanup(os.remove, self.hosts[0].path("/root/words"))
        self.hosts.submitter.write("/root/main.py", "print(1)\n")
        self.hosts.submitter.write("/root/job.json", json.dumps({
            "compute_target": "lab", "source_directory": ".", "entry_script": "main.py", "distributed_backend": "ps", "node_count": 2,
            "worker_count": 3, "parameter_server_count": 1, "pip_packages": ["numpy"], "inputs": [{"name": "words", "path": "/root/words"}]}))
        findings = self.asks("job.json", target="", code=1)
        self.assertEqual({one["node"] for one in findings}, {"h0", "h1"})
        self.assertEqual(self.bad(findings), {("problem", "h1", "inputs")})
        self.assertIn("/root/words: No such file or directory", self.the(findings, "h1", "inputs")["found"])
        self.assertEqual(self.the(findings, "h0", "inputs")["found"], "words /root/words")
        self.assertEqual(self.the(findings, "h0", "python")["state"], "ok")
        # ps/0, worker/0 and worker/2 are on h0.
        self.assertIn("2222-2224 can be had", self.the(findings, "h0", "ports")["found"])
        self.assertIn("2222 can be had", self.the(findings, "h1", "ports")["found"])

    def test_wrong_use(self):
        for words, says in ((["--target", "lap"], 'did you mean "lab"'), (["--target", "lab", "--hosts", "h0"], "--target and --hosts"),
                            (["nowhere.json"], "nowhere.json"), (["--wrong"], "--wrong")):
            code, out, err = self.hosts.submitter.run([BASIN, "doctor", *words])
            self.assertEqual((code, out), (2, ""), err)
            self.assertIn(says, err)


class WithoutBasin(Doctor):
    def test_programs_would_be_sent(self):
        with ssh_hosts.Hosts(2, bare={1}) as hosts, tempfile.TemporaryDirectory() as folder:
            bundle = hosts.submitter.path("/root/basin-test-linux-x86_64.tar.zst")
            with open(bundle, "wb") as file:
                file.write(b"only its name and its digest count here")
            code, out, err = hosts.submitter.run([BASIN, "doctor", "--hosts", "h0,h1", "--bundle", os.path.basename(bundle), "--json"])
            self.assertEqual(code, 0, out + err)
            findings = json.loads(out)
            self.assertEqual(self.bad(findings), {("warning", "h1", "unseen")})
            self.assertRegex(self.the(findings, "h1", "basin")["found"],
                             r"no basin .* there \(x86_64, glibc 2\..*\); basin submit sends /root/basin-test-linux-x86_64.tar.zst")
            os.rename(bundle, bundle.replace("x86_64", "riscv64"))
            for words in ([], ["--send"]):
                code, out, err = hosts.submitter.run([BASIN, "doctor", "--hosts", "h0,h1", "--bundle", "basin-test-linux-riscv64.tar.zst", *words])
                self.assertEqual(code, 1, out + err)
                self.assertRegex(out, r"problem  h1  basin .* do not run there; fix: the programs are for riscv64 ")

    def test_programs_are_sent_first_if_asked_for(self):
        processes.build_bundle()
        with ssh_hosts.Hosts(3, bare={1, 2}) as hosts:
            doctor = [BASIN, "doctor", "--hosts", "h0,h1,h2", "--send", "--json"]
            # What is no archive is not stored, and says so.
            hosts.submitter.write("/root/basin-test-linux-x86_64.tar.zst", "no archive")
            code, out, err = hosts.submitter.run([*doctor, "--bundle", "basin-test-linux-x86_64.tar.zst"])
            self.assertEqual(code, 1, out + err)
            self.assertIn("/root/basin-test-linux-x86_64.tar.zst could not be sent", self.the(json.loads(out), "h1", "basin")["found"])
            # One of two has no folder to put them.
            shutil.rmtree(hosts[2].path("/root/.cache"))
            hosts[2].write("/root/.cache", "a file where a folder should be")
            code, out, err = hosts.submitter.run(doctor)
            self.assertEqual(code, 1, out + err)
            findings = json.loads(out)
            self.assertEqual(self.bad(findings), {("problem", "h2", "basin")})
            self.assertIn("Basin's programs could not be stored there", self.the(findings, "h2", "basin")["fix"])
            self.assertEqual(self.the(findings, "h1", "reach")["found"], "its ports answer h0")
            self.assertRegex(err, r"node h1: Basin's programs are sent \([0-9]+ MB\)")
            os.remove(hosts[2].path("/root/.cache"))
            code, out, err = hosts.submitter.run(doctor)
            self.assertEqual((code, self.bad(json.loads(out))), (0, set()), out + err)
            self.assertNotIn("node h1", err)
            # Once they are there nothing is sent.
            code, out, err = hosts.submitter.run(doctor)
            self.assertEqual((code, self.bad(json.loads(out)), err), (0, set(), ""))

    def test_nothing_is_sent_but_by_ssh(self):
        code, out, err = processes.run([BASIN, "doctor", "--send"])
        self.assertEqual((code, out), (2, ""), err)
        self.assertIn("--send: target local is of kind local", err)


class OnThisMachine(Doctor):
    def setUp(self):
        self.home = tempfile.mkdtemp(prefix="basin-doctor-")
        self.addCleanup(shutil.rmtree, self.home)

    def doctor(self, *words):
        with processes.Process([BASIN, "doctor", *words, "--json"], env=dict(os.environ, HOME=self.home), cwd=self.home) as process:
            code = process.wait()
            return code, process.text("out"), process.text("err")

    def test_all_is_well(self):
        code, out, err = self.doctor()
        self.assertEqual(code, 0, out + err)
        findings = json.loads(out)
        self.assertEqual({one["node"] for one in findings}, {"localhost"})
        self.assertEqual([one["check"] for one in findings], ["basin", "gpu", "shm", "files", "ports", "reach"])
        self.assertEqual(self.the(findings, "localhost", "reach")["found"], "its ports answer localhost")
        self.assertEqual(os.listdir(self.home), [])

    def test_node_that_is_asked_by_hand(self):
        asked = subprocess.run([BASIN, "doctor-node"], input="are you well?\n", capture_output=True, text=True)
        self.assertEqual(asked.returncode, 2)
        self.assertRegex(asked.stdout, '^BASIN-DOCTOR {"hello":{.*}}\n$')
        self.assertIn("use basin doctor", asked.stderr)

    def test_input_that_is_not_there(self):
        with open(os.path.join(self.home, "job.json"), "w", encoding="utf-8") as file:
            json.dump({"entry_script": "basin:softmax", "distributed_backend": "ps", "inputs": [{"name": "data", "path": "nowhere"}]}, file)
        code, out, err = self.doctor("job.json")
        self.assertEqual(code, 1, out + err)
        # Who else listens on this machine is no matter of this test.
        self.assertEqual(self.bad(json.loads(out)) - {("warning", "localhost", "ports")}, {("problem", "localhost", "inputs")})


if __name__ == "__main__":
    unittest.main()
