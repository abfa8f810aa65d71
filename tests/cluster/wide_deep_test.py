"""Wide & deep on a small CSV file: parameter servers learn what one process learns, and its files and flags do what they say."""

import json
import math
import os
import random
import re
import struct
import unittest

import clusters
import processes

SCHEMA = """
label: {column: bought}
split: {column: day, test_from: "4"}
numeric: [price]
categorical: [shop, user]
buckets: [{name: hour, column: minute, width: 60}]
crosses: [[shop, hour]]
"""
FLAGS = ["--program", "wide_deep", "--hidden", "16", "--epochs", "4", "--batch-size", "64", "--learning-rate", "0.01",
         "--wide-learning-rate", "0.3", "--embedding-learning-rate", "0.1", "--schedule", "linear"]


def write_shop(folder, count=6000):
    """Who buys depends on shop and user, on the pair of shop and hour, and on the price. A fifth of the days is the test part."""
    draw = random.Random(3)
    shops, users = [draw.uniform(-1, 1) for _ in range(5)], [draw.uniform(-1, 1) for _ in range(40)]
    with open(os.path.join(folder, "shop.csv"), "w", encoding="utf-8") as file:
        file.write("day,shop,user,minute,price,bought\n")
        for _ in range(count):
            shop, user, minute, price = draw.randrange(5), draw.randrange(40), draw.randrange(240), draw.randrange(100)
            odds = shops[shop] + users[user] + (1.5 if (shop ^ minute // 60) & 1 else -1.5) + 0.02 * (price - 50)
            file.write(f'{draw.randrange(5)},"s, {shop}",u{user},{minute},{price},{int(draw.random() < 1 / (1 + math.exp(-odds)))}\n')
    with open(os.path.join(folder, "shop.yaml"), "w", encoding="utf-8") as file:
        file.write(SCHEMA)


class WideDeepTest(clusters.ClusterCase):
    def setUp(self):
        super().setUp()
        write_shop(self.folder)

    def worker(self, *flags, tf_config=None):
        """With these flags and those of FLAGS that are not among them."""
        usual = [*FLAGS, "--data", self.path("shop.csv"), "--schema", self.path("shop.yaml")]
        argv = [word for pair in zip(usual[::2], usual[1::2]) if pair[0] not in flags for word in pair]
        return self.start([processes.binary("basin-worker"), *argv, *flags], tf_config)

    def printed(self, process):
        """What it says of the test part: loss, accuracy, AUC."""
        self.ends(process)
        return [float(word) for word in re.findall(r"^test (?:loss|accuracy|AUC) (\S+)$", process.text("out"), re.MULTILINE)]

    def cluster(self, *flags, workers=2):
        """Trains on two ps, with an evaluator, to the folder `outputs`. What the evaluator wrote at the end."""
        layout = clusters.Layout(ps=2, workers=workers)
        ps = self.start_all_ps(layout)
        start = lambda role, index: self.worker("--outputs", self.path("outputs"), *flags, tf_config=layout.of(role, index))
        evaluator = start("evaluator", 0)
        evaluator.wait_for_line(": evaluating ")  # a short training must not be over before it has come
        trainers = self.start_workers(workers, lambda index: start("worker", index))
        self.all_end([evaluator, *trainers, *ps])
        with open(self.path("outputs", "evaluation.json"), encoding="utf-8") as file:
            return json.load(file)

    def test_one_worker_learns_what_one_process_learns(self):
        loss, accuracy, auc = self.printed(self.worker("--no-ps"))
        self.assertGreater(auc, 0.82)
        there = self.cluster(workers=1)
        # One worker's steps are those of one process, and rules and initial values are the same to the bit; what differs is
        # the compiler's order of additions.
        self.assertAlmostEqual(there["test_loss"], loss, delta=2e-3)
        self.assertAlmostEqual(there["test_accuracy"], accuracy, delta=5e-3)
        self.assertAlmostEqual(there["test_auc"], auc, delta=2e-3)

    def test_two_workers_learn_as_well_and_the_model_file_is_what_they_learned(self):
        _, _, auc = self.printed(self.worker("--no-ps"))
        there = self.cluster()
        self.assertAlmostEqual(there["test_auc"], auc, delta=0.02)
        model = self.path("outputs", "model.safetensors")
        read = self.printed(self.worker("--evaluate", model))
        for name, value in zip(("test_loss", "test_accuracy", "test_auc"), read):
            self.assertAlmostEqual(there[name], value, delta=1e-4, msg=name)
        with open(model, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        self.assertEqual(header["__metadata__"]["program"], "wide_deep")
        self.assertEqual(header["embedding/user/keys"]["shape"], [40])
        self.assertEqual(header["embedding/user/rows"]["shape"], [40, 8])
        self.assertEqual(header["wide/rows"]["shape"], [5 + 40 + 4 + 20, 1])  # shops, users, hours, shops x hours
        # Another seed's initial values do not matter to a file, another shape does.
        self.assertEqual(self.printed(self.worker("--evaluate", model, "--seed", "9")), read)
        self.assertIn('"deep/hidden0/kernel" is f32 [25, 16], the model\'s is f32 [25, 8]',
                      self.ends(self.worker("--evaluate", model, "--hidden", "8"), 2))

    def test_a_job_file_trains_it_and_ends_with_the_auc(self):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            json.dump({"experiment": "shop", "entry_script": "basin:wide_deep", "distributed_backend": "ps", "worker_count": 2,
                       "parameter_server_count": 2, "evaluator_count": 1, "script_params": dict(zip(FLAGS[2::2], FLAGS[3::2])),
                       "inputs": [{"name": "data", "path": "shop.csv"}, {"name": "schema", "path": "shop.yaml"}]}, file)
        submit = self.start([processes.binary("basin"), "submit", self.path("job.yaml"), "--runs", self.path("runs")])
        self.ends(submit)
        self.assertRegex(submit.text("out").splitlines()[-1], r"^test AUC 0\.[89]\d{3}$")

    def test_without_a_cluster_it_trains_on_its_own_ps(self):
        _, _, auc = self.printed(self.worker("--outputs", self.path("alone")))
        self.assertGreater(auc, 0.82)

    def test_max_steps_ends_the_run_early(self):
        self.assertLess(self.cluster("--max-steps", "20", workers=1)["global_step"], 40)

    def test_wrong_input_is_named(self):
        cases = [(["--schema", self.path("none.yaml")], "none.yaml: No such file"),
                 (["--data", self.path("none.csv")], "none.csv: No such file"),
                 (["--init-from", "x"], "cannot start from a model file"),
                 (["--wide-rule", "adadelta"], "--wide-rule adadelta: expected sgd, adagrad, adam, ftrl or adagrad_rowwise"),
                 (["--wide-l2", "-1"], "--wide-rule: rule ftrl: l2")]
        for flags, message in cases:
            self.assertIn(message, self.ends(self.worker("--no-ps", *flags), 2))
        with open(self.path("shop.csv"), "a", encoding="utf-8") as file:
            file.write("1,s1,u1,60,cheap,1\n")
        self.assertIn('shop.csv:6002: column 5 (price): "cheap" is no number', self.ends(self.worker("--no-ps"), 2))


if __name__ == "__main__":
    unittest.main()
