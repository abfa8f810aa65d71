"""Wrong input ends basin-ps and basin-worker at once with exit code 2, and says what to change."""

import json
import unittest

import clusters
import processes


class InputErrorsTest(clusters.ClusterCase):
    def both(self, tf_config):
        """What each program says of it."""
        texts = []
        for program in ("basin-ps", "basin-worker"):
            flags = [] if program == "basin-ps" else ["--data", self.data()]
            texts.append(self.ends(self.start([processes.binary(program), *flags], tf_config), 2))
        return texts

    def data(self):
        clusters.write_data(self.folder, 40, 20)
        return self.folder

    def test_malformed_tf_config_is_named_with_line_and_column(self):
        for text in self.both('{\n  "cluster": {"ps": ["127.0.0.1:1" "127.0.0.1:2"]}\n}'):
            self.assertRegex(text, r"^basin-(ps|worker): error: TF_CONFIG line 2 column 36: expected ',' or '\]', found")

    def test_trailing_comma_warns_and_works(self):
        layout = clusters.Layout(ps=1, workers=1)
        comma = lambda role: layout.of(role).replace(layout.workers[0] + '"]', layout.workers[0] + '"],')
        ps = self.start_ps(layout, tf_config=comma("ps"))
        worker = self.start_worker(layout, tf_config=comma("worker"))
        self.all_end([worker, ps])
        for text in (worker.text(), ps.text()):
            self.assertRegex(text, r"warning: TF_CONFIG line 1 column \d+: a comma before")

    def test_unknown_role_names_the_roles_and_the_nearest(self):
        layout = clusters.Layout()
        for text in self.both(layout.of("wroker")):
            self.assertIn('task.type "wroker": expected chief (or master), worker, ps or evaluator; did you mean "worker"?', text)

    def test_wrong_index_names_those_that_exist(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.ends(self.start_ps(layout, 3, wait=False), 2)
        self.assertIn(f'task ps 3: expected job "ps" to list index 3, found indices 0 at {layout.ps[0]}', ps)
        worker = self.ends(self.start_worker(layout, 5), 2)
        self.assertIn(f'task worker 5: expected job "worker" to list index 5, found indices 0 at {layout.workers[0]}', worker)
        flag = self.ends(self.start_ps(layout, 0, "--task-index", "4", wait=False), 2)
        self.assertIn("task ps 4", flag)

    def test_program_that_does_not_fit_the_role_says_which_one_does(self):
        layout = clusters.Layout()
        self.assertIn("worker 0, and this program is a ps; start basin-worker here", self.ends(self.start_ps(layout, tf_config=layout.of("worker"), wait=False), 2))
        self.assertIn("run basin-ps for that task", self.ends(self.start_worker(layout, role="ps"), 2))

    def test_bad_address_is_named_with_job_and_index(self):
        for text in self.both('{"cluster": {"ps": ["127.0.0.1:99999"], "worker": ["127.0.0.1:2"]}, "task": {"type": "ps", "index": 0}}'):
            self.assertRegex(text, r'job "ps" index 0 address "127\.0\.0\.1:99999"')

    def test_port_in_use_names_its_owner(self):
        layout = clusters.Layout(ps=1, workers=1)
        first = self.start_ps(layout)
        text = self.ends(self.start_ps(layout, wait=False), 2)
        self.assertRegex(text, rf"cannot bind {layout.ps[0]} .*in use by .*{first.pid}.*; stop that process, or give this task another port in TF_CONFIG")

    def test_metrics_port_in_use_is_said(self):
        layout = clusters.Layout(ps=1, workers=1)
        port = clusters.free_port_of_all(["0.0.0.0"])
        self.start_ps(layout, 0, "--metrics-port", port)
        other = clusters.Layout(ps=1, workers=1)
        self.assertIn(str(port), self.ends(self.start_ps(other, 0, "--metrics-port", port, wait=False), 2))

    def test_own_name_that_does_not_resolve_is_retried_and_reported(self):
        text = self.ends(self.start([processes.binary("basin-ps"), "--start-timeout", "1.5"],
                                    '{"cluster": {"ps": ["no-such-host.invalid:2222"], "worker": ["127.0.0.1:2223"]}, "task": {"type": "ps", "index": 0}}'), 2)
        self.assertRegex(text, r"waiting for this task's own name, \d+ s: .*no-such-host\.invalid")
        self.assertRegex(text, r"after [1-9]\d* s \(--start-timeout\): .*no-such-host\.invalid.*; correct it in TF_CONFIG or the name service")

    def test_peer_whose_name_does_not_resolve_is_reported_until_the_time_out(self):
        layout = clusters.Layout(ps=1, workers=1)
        cluster = dict(layout.cluster, worker=["no-such-host.invalid:2223"])
        ps = self.start_ps(layout, 0, "--start-timeout", "1", tf_config=layout.of("ps", 0, cluster))
        self.assertRegex(self.ends(ps, 2), r"gave up after \d+ s \(--start-timeout\): worker 0 at no-such-host\.invalid:2223, .*; correct the cluster in TF_CONFIG or the name service")

    def test_ps_that_a_worker_cannot_find_ends_it_after_the_time_out(self):
        layout = clusters.Layout(ps=1, workers=1)
        text = self.ends(self.start_worker(layout, 0, "--start-timeout", "1"), 1)
        self.assertRegex(text, rf"ps 0 at {layout.ps[0]} did not answer within [1-9]\d* s: ")
        cluster = dict(layout.cluster, ps=["no-such-host.invalid:2222"])
        text = self.ends(self.start_worker(layout, 0, "--start-timeout", "1", tf_config=layout.of("worker", 0, cluster)), 2)
        self.assertRegex(text, r"ps 0 at no-such-host\.invalid:2222 was not found within [1-9]\d* s: .*name does not resolve.*; correct it in TF_CONFIG or the name service")

    def test_ps_without_tf_config_says_what_to_set(self):
        text = self.ends(self.start([processes.binary("basin-ps")]), 2)
        self.assertIn("TF_CONFIG is not set", text)
        example = text[text.index("{"):text.rindex("}") + 1]
        self.assertEqual(json.loads(example)["task"], {"type": "ps", "index": 0})

    def test_dead_after_shorter_than_two_heartbeats_is_refused(self):
        layout = clusters.Layout()
        self.assertIn("--dead-after 1 is less than two heartbeats", self.ends(self.start_ps(layout, 0, "--dead-after", "1", wait=False), 2))

    def test_unknown_flag_and_value_are_refused(self):
        layout = clusters.Layout()
        self.assertIn("--lane", self.ends(self.start_ps(layout, 0, "--lane", "2", wait=False), 2))
        self.assertIn("--rule nesterov: expected sgd, momentum, adagrad or adam", self.ends(self.start_worker(layout, 0, "--rule", "nesterov"), 2))

    def test_number_out_of_its_range_is_refused_with_the_range(self):
        layout = clusters.Layout()
        for flag in ("--task-index", "--listen-fd"):
            text = self.ends(self.start_ps(layout, 0, flag, "-1", wait=False), 2)
            self.assertIn(f"{flag}: Value -1 not in range 0 to 1000000", text)

    def test_missing_data_is_named(self):
        layout = clusters.Layout()
        worker = self.start([processes.binary("basin-worker"), "--data", self.path("nowhere")], layout.of("worker"))
        self.assertIn(f"neither {self.path('nowhere')}/t10k-images-idx3-ubyte nor", self.ends(worker, 2))


if __name__ == "__main__":
    unittest.main()
