"""docs/first_job.md, followed to the letter on two SSH hosts that have never seen Basin."""

import os
import re
import unittest

import ssh_hosts

processes = ssh_hosts.processes
HOME = "/root/first"


def page():
    """({file: text}, [command]) of the page, in its order."""
    with open(processes.source("docs", "first_job.md"), encoding="utf-8") as file:
        text = file.read()
    files = dict(re.findall(r"^`(\S+)`\n\n```(?:python|yaml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return files, [line for block in blocks for line in block.splitlines()]


class FirstJob(unittest.TestCase):
    def setUp(self):
        ssh_hosts.skip_if_missing()
        processes.build_bundle()
        self.hosts = ssh_hosts.Hosts(2, bare={0, 1})
        self.addCleanup(self.hosts.stop)

    def type(self, command):
        """What a user sees of a command that ends well: both streams."""
        path = f"{os.environ['BASIN_BINARY_DIR']}/bin:{ssh_hosts.PATH}"
        code, out, err = self.hosts.submitter.run(["bash", "-c", command], cwd=HOME, PATH=path)
        self.assertEqual(code, 0, f"{command}\n{out}\n{err}")
        return out + err

    def test_page_can_be_followed(self):
        files, commands = page()
        self.assertEqual(list(files), ["src/train.py", "job.yaml"])
        for name, text in files.items():
            self.hosts.submitter.write(f"{HOME}/{name}", text)
        said = {command: self.type(command) for command in commands}

        def of(beginning):
            return next(text for command, text in said.items() if command.startswith(beginning))
        learned = r"\[ 1\. +2\. +3\. +4\. +5\. +6\. +7\. +8\. +9\. +10\.\]"
        self.assertRegex(of("basin doctor"), r"2 nodes: [0-9]+ ok, [0-9]+ warnings?, 0 problems")
        self.assertRegex(of("basin submit"), r"run \S+: Completed after")
        self.assertRegex(of("basin show"), r"(?s)state +Completed.*ps 0 +h0 .*worker 1 +h1 .*outputs/model\.npz")
        self.assertRegex(of("basin metrics"), r"loss +worker/0 ")
        self.assertRegex(of("basin logs"), "learned " + learned)
        self.assertRegex(of("python3"), learned)
        self.assertIn("ten-numbers:1", of("basin models list"))
        self.assertRegex(of("basin attach"), r"(?s)learned " + learned + ".*Completed after")
        for host in self.hosts:
            host.wait_until_idle()


if __name__ == "__main__":
    unittest.main()
