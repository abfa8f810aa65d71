"""What the measuring scripts make of figures: medians, goals, tables, shares of a profile. Nothing is measured here."""

import pathlib
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path[:0] = [str(BENCH), str(BENCH / "peers")]

import figures  # noqa: E402
import goals  # noqa: E402
import performance_page  # noqa: E402
import profile_shares  # noqa: E402
import table_of_peers  # noqa: E402
import transport_check  # noqa: E402


def result(value, **more):
    return {"value": value, "unit": "GB/s", **more}


class Figures(unittest.TestCase):
    def test_the_median_of_the_rounds_counts(self):
        part = figures.Part("p")
        for value in (5.0, 1.0, 2.0):
            part.add("x", value, "s", True)
        self.assertEqual(part.document()["results"][0]["value"], 2.0)
        self.assertEqual(part.document()["results"][0]["values"], [5.0, 1.0, 2.0])

    def test_one_round_that_fails_its_check_spoils_the_figure(self):
        part = figures.Part("p")
        for checked in (True, False, True):
            part.add("x", 1.0, "s", checked)
        self.assertIs(part.document()["results"][0]["checked"], False)

    def test_two_units_under_one_name_are_refused(self):
        part = figures.Part("p")
        part.add("x", 1.0, "s")
        with self.assertRaisesRegex(ValueError, "came in s and now in ms"):
            part.add("x", 1.0, "ms")

    def test_a_part_repeated_alone_keeps_the_other_results(self):
        with tempfile.TemporaryDirectory() as folder:
            first = figures.Part("p")
            first.add("old", 1.0, "s", True)
            first.add("both", 1.0, "s", True)
            first.save(folder)
            second = figures.Part("p")
            second.add("both", 2.0, "s", True)
            second.keep_others(folder)
            second.save(folder)
            loaded = figures.load(folder, "p")
            self.assertEqual({name: one["value"] for name, one in loaded.items()}, {"old": 1.0, "both": 2.0})
            self.assertEqual(figures.load(folder, "never measured"), {})

    def test_numbers_have_three_digits_that_count(self):
        texts = [figures.number(x) for x in (None, 0, 0.0253, 0.604, 1.529, 14.62, 508.6, 5363, 14730, 7.14e6, 1.2e9)]
        self.assertEqual(texts, ["–", "0", "0.0253", "0.604", "1.53", "14.6", "509", "5363", "14.7 k", "7.14 M", "1.20 G"])

    def test_a_table_is_markdown(self):
        self.assertEqual(figures.table(["", "a|b"], [["x", 1.5], ["y", None]]), "|  | a|b |\n|---|---|\n| x | 1.50 |\n| y | – |\n")
        with self.assertRaisesRegex(ValueError, "a row of 1 cells in a table of 2"):
            figures.table(["a", "b"], [["x"]])


class Goals(unittest.TestCase):
    LEAST = goals.Goal("s", "w", "p", "x", at_least=1.1)
    MOST = goals.Goal("s", "w", "p", "x", at_most=1.3)

    def test_a_figure_is_compared_with_the_limit_measured_beside_it(self):
        for value, met in ((3.4, True), (3.2, False)):
            found = goals.outcome(self.LEAST, {"p": {"x": result(value, limit_name="raw", limit=3.0)}})
            self.assertEqual((found.limit_name, found.limit, found.met), ("raw", 3.0, met))
            self.assertAlmostEqual(found.ratio, value / 3.0)

    def test_a_latency_may_be_at_most_so_much(self):
        for value, met in ((120.0, True), (140.0, False)):
            self.assertIs(goals.outcome(self.MOST, {"p": {"x": result(value, limit_name="zmq", limit=100.0)}}).met, met)

    def test_what_was_not_measured_is_neither_met_nor_missed(self):
        self.assertIsNone(goals.outcome(self.LEAST, {}).met)
        self.assertIsNone(goals.outcome(self.LEAST, {"p": {"x": result(1.0)}}).met)

    def test_a_figure_whose_check_failed_meets_nothing(self):
        self.assertIs(goals.outcome(self.LEAST, {"p": {"x": result(9.0, limit=1.0, checked=False)}}).met, False)

    def test_times_are_compared_the_other_way_round(self):
        goal = goals.Goal("s", "w", "p", "mine", at_least=8, limit="theirs", inverse=True)
        found = goals.outcome(goal, {"p": {"mine": result(3.0), "theirs": result(30.0)}})
        self.assertEqual((found.ratio, found.met), (10.0, True))

    def test_no_goal_is_listed_twice(self):
        listed = [(goal.part, goal.name, goal.limit) for goal in goals.goals()]
        self.assertEqual(len(listed), len(set(listed)))


class Peers(unittest.TestCase):
    def test_figures_stand_in_their_peers_column(self):
        text = table_of_peers.markdown({"basin": {"tcp_push/bytes:1048576": result(3.9)}, "grpc": {"push/bytes:1048576": result(1.2)}, "redis": {}})
        self.assertIn("|  | Basin, TCP | gRPC (C++) |\n", text)
        self.assertIn("| push 1 MiB | 3.90 | 1.20 |\n", text)
        self.assertIn("| pull 4 MiB | – | – |\n", text)

    def test_millions_a_second_become_numbers_a_second(self):
        self.assertEqual(table_of_peers.in_plain_units({"name": "n", "value": 12.5, "unit": "M/s"})["value"], 12.5e6)
        self.assertEqual(table_of_peers.in_plain_units({"name": "n", "value": 12.5, "unit": "GB/s"})["value"], 12.5)

    def test_pushes_without_the_right_sums_are_named_except_where_nothing_is_applied(self):
        measured = {"grpc": {"push/bytes:1": result(1, checked=False), "pull/bytes:1": result(1, checked=False)},
                    "redis": {"push/bytes:1": result(1, checked=False)}, "torch": {"push/bytes:1": result(1, checked=True)}}
        self.assertEqual(table_of_peers.unchecked_pushes(measured), [("grpc", "push/bytes:1")])


class Profile(unittest.TestCase):
    REPORT = ("# Overhead\tPid:Command\n"
              "30.00%\t11:ZMQbg/IO/0\tZMQbg/IO/0\t[kernel.kallsyms]\t[k] _copy_from_iter\n"
              "20.00%\t12:ZMQbg/IO/0\tZMQbg/IO/0\t[kernel.kallsyms]\t[k] _copy_from_iter\n"
              "25.00%\t13:basin-worker\tbasin-worker\tlibopenblasp-r0.3.21.so\t[.] sgemm_kernel\n"
              "15.00%\t14:basin-ps\tbasin-ps\tbasin-ps\t[.] basin::(anonymous namespace)::AdamLoop\n"
              "10.00%\t14:basin-ps\tbasin-ps\tlibzmq.so.5\t[.] 0x0000000000012345\n")

    def test_samples_are_told_apart_by_kind(self):
        shares = profile_shares.shares_of(profile_shares.rows_of(self.REPORT))
        self.assertEqual({kind: round(share, 6) for kind, share in shares.items()},
                         {"copy between kernel and program": 0.5, "training's own arithmetic": 0.25, "apply and check": 0.15, "ZeroMQ": 0.1})

    def test_a_function_counts_over_all_threads_of_a_name_the_largest_first(self):
        first = profile_shares.functions_of(profile_shares.rows_of(self.REPORT))[0]
        self.assertEqual((first["function"], first["thread"], round(first["share"], 6)), ("_copy_from_iter", "ZMQbg/IO/0", 0.5))
        self.assertEqual(profile_shares.shares_of(profile_shares.rows_of("nothing\n")), {})

    def test_the_limit_measured_beside_a_figure_is_not_in_its_profile(self):
        report = ("60.00%\t1:basin-bench\tbasin-bench\t[kernel.kallsyms]\t[k] _copy_to_iter\n"
                  "10.00%\t2:basin-bench\tbasin-bench\t[kernel.kallsyms]\t[k] tcp_sendmsg\n"
                  "10.00%\t2:basin-bench\tbasin-bench\tlibbasin.so.0.1.0\t[.] basin_start\n"
                  "20.00%\t3:basin-ps\tbasin-ps\tbasin-ps\t[.] basin::Shard::Apply\n")
        alone = profile_shares.of_basin_alone(profile_shares.rows_of(report))
        self.assertEqual({row["id"] for row in alone}, {"2", "3"})
        self.assertAlmostEqual(sum(profile_shares.shares_of(alone).values()), 1.0)


class Transports(unittest.TestCase):
    PUSH = [result(4.0, limit_name="tcp_stream/bytes:1048576", limit=4.0)]

    def test_shared_memory_that_went_over_loopback_is_found_out(self):
        self.assertTrue(transport_check.went_as_said("shm", self.PUSH, 1.0, 1e6))
        self.assertFalse(transport_check.went_as_said("shm", self.PUSH, 1.0, 4e9))

    def test_tcp_that_went_through_memory_is_found_out_although_its_limit_used_loopback(self):
        self.assertTrue(transport_check.went_as_said("tcp", self.PUSH, 1.0, 8.1e9))
        self.assertFalse(transport_check.went_as_said("tcp", self.PUSH, 1.0, 4.1e9))

    def test_nothing_measured_proves_nothing(self):
        self.assertFalse(transport_check.went_as_said("shm", [], 1.0, 0))

    def test_figures_under_a_false_name_are_left_out_of_the_page_which_says_so(self):
        results = {"tcp_push/bytes:1": result(1.0), "shm_push/bytes:1": result(2.0), "apply/rule:sgd/bytes:1": result(3.0)}
        kept, texts = performance_page.without_false_names(results, {"tcp": "", "shm": "it did not go over shm"})
        self.assertEqual(list(kept), ["tcp_push/bytes:1", "apply/rule:sgd/bytes:1"])
        self.assertEqual(texts, ["Figures named `shm_` are left out: it did not go over shm."])


class Page(unittest.TestCase):
    MADE = {"date": "2030-01-02", "machine": {"cpu": "c", "cores": 2, "kernel": "k", "system": "Linux"}}

    def test_says_what_is_met_what_is_not_and_what_was_not_measured(self):
        parts = {"canonical": {"tcp_push/bytes:1048576": result(2.0, limit_name="tcp_stream", limit=4.0, cpu_s_per_gb=0.5, peak_rss_bytes=1 << 20),
                               "tcp_pull/bytes:1048576": result(6.0, limit_name="tcp_stream", limit=4.0)}}
        page = performance_page.page(parts, {"grpc": {"push/bytes:1048576": result(1.2)}}, None, "What was tried.\n", self.MADE)
        self.assertIn("| push of 1 MiB variables | 2.00 GB/s | 4.00 GB/s | `tcp_stream` | 0.500 | ≥ 1.1 | **no** |", page)
        self.assertIn("| pull of 1 MiB variables | 6.00 GB/s | 4.00 GB/s | `tcp_stream` | 1.50 | ≥ 1.1 | yes |", page)
        self.assertIn("1 are met, 1 are not, ", page)
        self.assertIn("- TCP: push of 1 MiB variables: 0.500 of 1.1", page)
        self.assertIn("### Apply, 64 MiB\n\nNot measured yet.", page)
        self.assertTrue(page.endswith("What was tried.\n"))


if __name__ == "__main__":
    unittest.main()
