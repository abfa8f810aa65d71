"""What basin-worker reports by Step reaches the file that BASIN_METRICS_FILE names: loss and rate of a worker, and the
evaluator's accuracy as it was at the end."""

import json
import pathlib
import unittest

import clusters


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]


class StepMetricsTest(clusters.ClusterCase):
    def test_training_and_evaluation_report_their_metrics(self):
        layout = clusters.Layout(ps=1, workers=1)
        self.start_all_ps(layout)
        evaluator = self.start_evaluator(layout, "--outputs", self.path("outputs"), BASIN_METRICS_FILE=self.path("evaluator.jsonl"))
        worker = self.start_worker(layout, 0, "--epochs", "3", BASIN_METRICS_FILE=self.path("worker.jsonl"))
        self.ends(worker)
        self.ends(evaluator)
        trained = lines_of(self.path("worker.jsonl"))
        self.assertEqual({line["name"] for line in trained}, {"loss", "examples_per_s"})
        steps = [line["step"] for line in trained if line["name"] == "loss"]
        self.assertEqual(steps, sorted(steps))
        self.assertGreater(steps[-1], steps[0])
        evaluated = json.loads(pathlib.Path(self.path("outputs"), "evaluation.json").read_text(encoding="utf-8"))
        tested = {line["name"]: line for line in lines_of(self.path("evaluator.jsonl"))}
        self.assertAlmostEqual(tested["test_accuracy"]["value"], evaluated["test_accuracy"], places=5)
        self.assertAlmostEqual(tested["test_loss"]["value"], evaluated["test_loss"], places=5)
        self.assertEqual(tested["test_accuracy"]["step"], evaluated["global_step"])


if __name__ == "__main__":
    unittest.main()
