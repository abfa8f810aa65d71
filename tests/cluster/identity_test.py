"""Who may take part in a run, and who is told why not."""

import json
import os
import random
import socket
import unittest

import clusters
import processes

HOST = os.uname().nodename


class IdentityTest(clusters.ClusterCase):
    def holding(self, layout, index=0, **environment):
        """A worker that stays half-way until `release`."""
        worker = self.start_counter(layout, index, "--pushes", "20", "--hold", self.hold(), **environment)
        worker.wait_for_line("half-way")
        return worker

    def finish(self, tasks):
        self.release()
        self.all_end(tasks)

    def test_worker_of_another_run_is_refused_and_told_who_has_the_ps(self):
        layout = clusters.Layout(ps=2, workers=1)
        ps = self.start_all_ps(layout, BASIN_RUN_ID="apple")
        first = self.holding(layout, BASIN_RUN_ID="apple")
        text = self.ends(self.start_counter(layout, 0, BASIN_RUN_ID="pear"), 2)
        self.assertRegex(text, rf'ps 0 at {layout.ps[0]}: .*belongs to run "apple" \(claimed by pid {first.pid} on {HOST} at [0-9:]+ UTC\), this client to run "pear"')
        self.finish([first] + ps)

    def test_ps_that_knows_no_run_takes_the_first_clients(self):
        layout = clusters.Layout(ps=2, workers=1)
        ps = self.start_all_ps(layout)
        first = self.holding(layout)
        # A second cluster, whose list of ps has the other's ps 1 by mistake.
        other = clusters.Layout(ps=1, workers=1)
        mixed = {"ps": [other.ps[0], layout.ps[1]], "worker": other.workers}
        other_ps = self.start_ps(other, 0, tf_config=other.of("ps", 0, mixed))
        text = self.ends(self.start_counter(other, 0, tf_config=other.of("worker", 0, mixed)), 2)
        self.assertRegex(text, rf'ps 1 at {layout.ps[1]}: .*belongs to run "[0-9a-f]+" \(claimed by pid {first.pid} on {HOST}')
        other_ps.kill()
        self.finish([first] + ps)

    def test_second_process_for_a_living_task_is_refused_with_the_first_ones_pid(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        first = self.holding(layout)
        text = self.ends(self.start_counter(layout, 0, "--claim-timeout", "1"), 2)
        self.assertRegex(text, rf"worker 0 is running already: pid {first.pid} on {HOST}, last heard \d+ s ago")
        self.finish([first, ps])

    def token(self, name, text, mode=0o600):
        path = self.path(name)
        with open(path, "w") as file:
            file.write(text + "\n")
        os.chmod(path, mode)
        return path

    def test_wrong_or_missing_token_is_refused_and_no_token_is_printed(self):
        secret, wrong = "d3adbeefcafe0123", "0123456789abcdef"
        right_file, wrong_file = self.token("token", secret), self.token("wrong", wrong)
        layout = clusters.Layout(ps=2, workers=1)
        ps = self.start_all_ps(layout, BASIN_TOKEN_FILE=right_file)
        first = self.holding(layout, BASIN_TOKEN_FILE=right_file)
        without = self.ends(self.start_counter(layout), 2)
        self.assertIn("wants this run's token, and the client showed none", without)
        other = self.ends(self.start_counter(layout, BASIN_TOKEN_FILE=wrong_file), 2)
        self.assertIn("wants this run's token, and the client showed another", other)
        top = [processes.binary("basin"), "top", "--json", "--ps", layout.ps[0]]
        code, out, err = processes.run(top, env=self.environment)
        self.assertEqual(code, 2, out + err)
        self.assertIn("token", err)
        code, out, err = processes.run(top + ["--token-file", right_file], env=self.environment)
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out)["state"], "training")
        self.finish([first] + ps)
        self.assertRegex(ps[0].text(), r"refused worker 0 \(pid \d+ on .*\): its token is not this run's")
        for text in [without, other, out, err, first.text()] + [one.text() for one in ps]:
            self.assertNotIn(secret, text)
            self.assertNotIn(wrong, text)

    def test_token_file_that_is_missing_empty_or_open_to_all_is_said(self):
        layout = clusters.Layout(ps=1, workers=1)
        missing = self.start_ps(layout, 0, "--token-file", self.path("nowhere"), wait=False)
        self.assertIn(self.path("nowhere"), self.ends(missing, 2))
        empty = self.start_ps(layout, 0, "--token-file", self.token("empty", ""), wait=False)
        self.assertIn("is empty; write a random token into it", self.ends(empty, 2))
        self.assertIn(" is empty", self.ends(self.start_counter(layout, BASIN_TOKEN_FILE=self.path("empty")), 2))
        open_to_all = self.start_ps(layout, 0, "--token-file", self.token("open", "0123456789abcdef", 0o644))
        self.assertIn("can be read by others; chmod 600", open_to_all.text())

    def test_another_model_is_refused_with_the_first_difference(self):
        layout = clusters.Layout(ps=1, workers=2)
        ps = self.start_ps(layout)
        chief = self.holding(layout, 0)
        text = self.ends(self.start_counter(layout, 1, "--elements", "7"), 2)
        self.assertRegex(text, r'the model that worker 1 .*declares differs from the run\'s: the shape of variable 0 \("count"\) is \[7\], the run has \[2\]')
        self.finish([chief, self.holding(layout, 1), ps])

    def test_worker_that_the_cluster_does_not_have_is_refused_with_those_it_has(self):
        layout = clusters.Layout(ps=1, workers=2)
        ps = self.start_ps(layout)
        wider = dict(layout.cluster, worker=layout.workers + clusters.addresses(1))
        text = self.ends(self.start_counter(layout, 2, tf_config=layout.of("worker", 2, wider)), 2)
        self.assertIn("worker 2 is not in the cluster, which has worker 0, worker 1; give all tasks the same cluster in TF_CONFIG", text)
        ps.kill()

    def test_another_list_of_ps_is_refused(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        wider = dict(layout.cluster, ps=layout.ps + clusters.addresses(1))
        text = self.ends(self.start_counter(layout, 0, tf_config=layout.of("worker", 0, wider)), 2)
        self.assertRegex(text, r"is one of 1 ps.*, the client knows 2; give all tasks the same list of ps")
        ps.kill()

    def test_garbage_on_the_port_harms_nobody(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        worker = self.holding(layout)
        draw = random.Random(11)
        host, port = layout.ps[0].split(":")
        greeting = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        ready_body = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
        ready = b"\x04" + bytes([len(ready_body)]) + ready_body
        frame = lambda body, more: bytes([1 if more else 0, len(body)]) + body
        talks = [b"GET / HTTP/1.1\r\nHost: ps\r\n\r\n", b"", greeting, greeting + ready, greeting + draw.randbytes(64),
                 greeting + ready + b"\x02" + (1 << 62).to_bytes(8, "big"), greeting + ready + frame(b"", False)]
        talks += [draw.randbytes(draw.randrange(1, 300)) for _ in range(20)]
        for _ in range(20):
            frames = [draw.randbytes(draw.randrange(0, 120)) for _ in range(draw.randrange(1, 4))]
            talks.append(greeting + ready + b"".join(frame(body, i + 1 < len(frames)) for i, body in enumerate(frames)))
        # A header that begins right, and goes on wrong.
        talks += [greeting + ready + frame(b"BSN1" + draw.randbytes(draw.randrange(0, 90)), False) for _ in range(10)]
        for talk in talks:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                try:
                    connection.sendall(talk)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(60)
                    while connection.recv(4096):
                        pass
                except ConnectionError:
                    pass  # the ps has cut the stranger off
        self.finish([worker, ps])
        self.assertIn("every element is -20", worker.text("out"))


if __name__ == "__main__":
    unittest.main()
