"""Runs that go well or are ended on purpose: what every target does alike."""

import itertools
import json
import os
import signal

from conformance_case import SCRIPT, STAY, STUBBORN, ConformanceCase, clusters, processes


MODEL_BYTES = 4 * (64 * 4096 + 4096 + 4096 * 10 + 10)


class Runs(ConformanceCase):
    def test_completed_run_has_outputs_logs_metrics_and_exit_codes(self):
        record = self.ends(self.submit("""
mkdir -p outputs/deep logs
echo "hello from $me"
echo "$me" >outputs/model.txt
echo "$me" >"outputs/deep/only-$me.txt"
echo "note of $me" >logs/note.txt
for step in 1 2 3; do basin metric log loss 0.$step --step $step; done
"""))
        self.assertEqual([(task["role"], task["index"], task["exit_code"]) for task in record["tasks"]], [("worker", 0, 0), ("worker", 1, 0)])
        self.assertEqual(sorted({task["host"] for task in record["tasks"]}), sorted(self.target.nodes))
        for me in ("worker-0", "worker-1"):
            self.assertIn(f"hello from {me}\n", self.read("logs", f"{me}.txt"))
            self.assertEqual(self.read("outputs/deep", f"only-{me}.txt"), f"{me}\n")
        # The chief's lie where they would in one process; another's of the same name beside them.
        self.assertEqual(self.read("outputs/model.txt"), "worker-0\n")
        self.assertEqual(self.read("outputs/by-task/worker-1/model.txt"), "worker-1\n")
        self.assertEqual(self.read("logs/note.txt"), "note of worker-0\n")
        self.assertEqual(self.read("logs/worker-1/note.txt"), "note of worker-1\n")
        self.assertEqual(record["metrics"], {"loss": 0.3})
        points = [json.loads(line) for line in self.read("metrics.jsonl").splitlines()]
        self.assertEqual(sorted((point["task"], point["step"], point["value"]) for point in points if point["name"] == "loss"),
                         [(f"worker/{index}", step, step / 10) for index in (0, 1) for step in (1, 2, 3)])
        self.assertTrue(record["portal_url"].startswith("file://") and record["portal_url"].endswith("/index.html"), record)
        self.assertIn(record["run_id"], self.read("index.html"))
        self.nothing_left()

    def test_what_an_earlier_run_has_left_in_the_source_is_not_of_this_one(self):
        self.write("outputs/model.h5", "of an earlier run")
        self.write("logs/old.txt", "of an earlier run")
        submitted = self.submit("ls outputs logs; echo new >outputs/new; exit 3")
        self.ends(submitted, 1, "Failed")
        self.assertEqual(submitted.text("err").count("outputs/ of "), 1)
        self.assertFalse(os.path.exists(os.path.join(self.folder(), "outputs/model.h5")))
        self.assertFalse(os.path.exists(os.path.join(self.folder(), "logs/old.txt")))
        self.assertEqual(self.read("outputs/new"), "new\n")

    def test_setup_that_ends_the_shell_is_no_success(self):
        self.ends(self.submit("echo ran", setup=["true", "exit 0"]), 1, "Failed")
        folder = os.path.join(self.folder(), "logs")
        logs = "".join(self.read("logs", name) for name in os.listdir(folder) if name.startswith("worker-") and name.endswith(".txt"))
        self.assertIn("basin: setup line 2 ended the task, before its script: exit 0\n", logs)
        self.assertNotIn("ran\n", logs)

    def test_states_are_passed_in_their_order(self):
        self.ends(self.submit("echo done"))
        states = [entry["state"] for entry in map(json.loads, self.read("journal.jsonl").splitlines()) if entry["event"] == "state"]
        order = ["NotStarted", "Starting", "Provisioning", "Preparing", "Running", "Finalizing", "Completed"]
        # A run that waits in a queue goes on with what it was at.
        passed = [state for state, _ in itertools.groupby(state for state in states if state in order)]
        self.assertEqual([state for state in order if state in states], passed)
        for state in ("Starting", "Running", "Finalizing", "Completed"):
            self.assertIn(state, states)

    def test_script_gets_its_snapshot_arguments_and_environment(self):
        self.write("data/words.txt", "one two\n")
        self.write("tool.sh", "#!/bin/sh\necho tool ran\n", 0o755)
        self.write(".basinignore", "secret*\n")
        self.write("secret.txt", "not for the nodes\n")
        self.write("main.py", """
import json, os, subprocess, sys
names = sorted(os.path.relpath(os.path.join(place, name)) for place, _, found in os.walk(".") for name in found)
about = {"argv": sys.argv[1:], "files": names, "words": open("data/words.txt").read(), "tool": subprocess.check_output("./tool.sh", text=True),
         "config": json.loads(os.environ["TF_CONFIG"]), "folder": os.getcwd(), "environment": dict(os.environ)}
os.makedirs("outputs", exist_ok=True)
with open("outputs/about-" + os.environ["BASIN_TASK_INDEX"] + ".json", "w") as file:
    json.dump(about, file)
open("data/words.txt", "w").write("changed by one task")
""")
        os.makedirs(self.target.seen(os.path.join(self.target.shared, "mnist")), exist_ok=True)
        record = self.ends(self.submit(entry_script="main.py", script_params={"--rate": 0.1, "--fast": "", "--data-folder": {"input": "mnist"}},
                                       inputs=[{"name": "mnist", "path": self.target.shared + "/mnist"}],
                                       environment_variables={"GREETING": "hello there"}))
        for index in (0, 1):
            about = json.loads(self.read(f"outputs/about-{index}.json"))
            self.assertEqual(about["argv"], ["--rate", "0.1", "--fast", "--data-folder", self.target.shared + "/mnist"])
            self.assertEqual((about["words"], about["tool"]), ("one two\n", "tool ran\n"))
            self.assertIn("data/words.txt", about["files"])
            self.assertNotIn("secret.txt", about["files"])
            self.assertEqual(about["config"]["task"], {"type": "worker", "index": index})
            self.assertEqual(about["config"]["cluster"]["worker"], [task["address"] for task in record["tasks"]])
            environment = about["environment"]
            expected = {"GREETING": "hello there", "BASIN_RUN_ID": record["run_id"], "BASIN_ROLE": "worker", "BASIN_RANK": str(index),
                        "WORLD_SIZE": "2", "AZ_BATCHAI_TASK_INDEX": str(index), "BASIN_INPUT_MNIST": self.target.shared + "/mnist",
                        "AZUREML_DATAREFERENCE_mnist": self.target.shared + "/mnist", "BASIN_RUN_DIR": about["folder"]}
            self.assertEqual({name: environment.get(name) for name in expected}, expected)

    def test_logs_stream_while_the_run_goes_on(self):
        submitted = self.submit("mkdir -p logs; echo script >logs/own.txt" + STAY.replace("while :; do sleep 0.05; done", "until_flag go; echo $me went on"))
        self.wait_until_up(submitted)
        for name, text in (("worker-0.txt", "worker-0 is up"), ("worker-1.txt", "worker-1 is up"), ("worker-1/own.txt", "script")):
            processes.wait_until(lambda: os.path.exists(os.path.join(self.folder(), "logs", name)) and text in self.read("logs", name),
                                 f"logs/{name} has streamed")
        self.wait_for_state("Running")  # a loaded node may not have been heard for a moment
        self.raise_flag("go")
        self.ends(submitted)
        self.assertIn("worker-1 went on", self.read("logs/worker-1.txt"))

    def test_large_outputs_come_whole(self):
        self.ends(self.submit("mkdir -p outputs; head -c 20000000 /dev/zero | tr '\\0' $BASIN_TASK_INDEX >outputs/$me.bin; : >outputs/empty-$me"))
        for index in (0, 1):
            with open(os.path.join(self.folder(), f"outputs/worker-{index}.bin"), "rb") as file:
                self.assertTrue(file.read() == str(index).encode() * 20000000, f"worker-{index}.bin differs")
            self.assertEqual(self.read(f"outputs/empty-worker-{index}"), "")

    def test_failed_task_stops_the_others_and_all_outputs_are_kept(self):
        submitted = self.submit("""
mkdir -p outputs; echo "$me" >"outputs/$me.txt"
if [ $me = worker-1 ]; then until_flag up-worker-0; for i in $(seq 30); do echo "line $i"; done; exit 3; fi
""" + STAY)
        record = self.ends(submitted, 1, "Failed")
        self.assertIn("worker 1 exited with code 3", record["reason"])
        self.assertIn("line 30", submitted.text("err"))
        self.assertEqual(self.task(record, "worker-1")["exit_code"], 3)
        self.assertIn("worker-0 says goodbye", self.read("logs/worker-0.txt"))
        for me in ("worker-0", "worker-1"):
            self.assertEqual(self.read(f"outputs/{me}.txt"), f"{me}\n")
        self.nothing_left()

    def test_task_that_refuses_its_input_gives_exit_code_2(self):
        self.ends(self.submit("exit 2"), 2, "Failed")
        self.nothing_left()

    def test_signal_to_the_submitter_cancels(self):
        submitted = self.submit("mkdir -p outputs; echo kept >outputs/$me" + STAY)
        self.wait_until_up(submitted)
        submitted.send(signal.SIGTERM)
        self.ends(submitted, 1, "Canceled")
        for me in ("worker-0", "worker-1"):
            self.assertIn(f"{me} says goodbye", self.read("logs", f"{me}.txt"))
            self.assertEqual(self.read("outputs", me), "kept\n")
        self.nothing_left()

    def test_cancel_ends_a_detached_run(self):
        detached = self.submit(STAY, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))["run_id"]
        self.wait_until_up()
        self.assertEqual(self.asks("cancel", run)["run_id"], run)
        self.assertEqual(self.wait_for_state("Completed", "Failed", "Canceled")["state"], "Canceled")
        self.nothing_left()

    def test_what_ignores_sigterm_is_killed_after_the_grace(self):
        submitted = self.submit(STUBBORN, cancel_grace_seconds=1)
        self.wait_until_up(submitted)
        submitted.send(signal.SIGTERM)
        self.ends(submitted, 1, "Canceled")
        self.nothing_left()

    def test_time_limit_cancels(self):
        record = self.ends(self.submit(STAY, max_run_duration_seconds=1), 1, "Canceled")
        self.assertIn("max_run_duration_seconds", record["reason"])
        self.nothing_left()

    def test_what_a_task_leaves_behind_ends_with_it(self):
        self.ends(self.submit("( setsid sleep 4000 >/dev/null 2>&1 & ); echo done", cancel_grace_seconds=1))
        self.nothing_left()

    def test_missing_interpreter_is_named_with_its_node(self):
        self.write("main.run", "#!/not/there/lua\n", 0o755)
        submitted = self.submit(entry_script="main.run")
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertIn("/not/there/lua", submitted.text("err"))
        self.nothing_left()

    def test_taken_port_is_passed_over(self):
        self.addCleanup(self.target.listen_on(self.target.nodes[-1], 2222).kill)
        record = self.ends(self.submit("echo done"))
        self.assertNotIn("2222", [task["address"].rpartition(":")[2] for task in record["tasks"] if task["host"] == self.target.nodes[-1]])

    def test_port_that_a_stranger_takes_repeats_the_start_with_others(self):
        submitted = self.submit("""
port=$(printf %s "$TF_CONFIG" | python3 -c 'import json, sys; c = json.load(sys.stdin); print(c["cluster"]["worker"][1].rpartition(":")[2])')
echo "$me would use $port"
if [ $me = worker-1 ] && [ ! -e "$FLAGS/first" ]; then
  echo "$port" >"$FLAGS/port.part"; mv "$FLAGS/port.part" "$FLAGS/first"
  until_flag taken; echo "cannot bind $port"; exit 1
fi
until_flag taken
""")
        self.wait_for_flag("first")
        with open(self.target.seen(os.path.join(self.flags, "first")), encoding="ascii") as file:
            port = int(file.read())
        stranger = self.target.listen_on(self.task(self.wait_for_state("Running"), "worker-1")["host"], port)
        self.addCleanup(stranger.kill)
        self.raise_flag("taken")
        record = self.ends(submitted)
        self.assertNotEqual(self.task(record, "worker-1")["address"].rpartition(":")[2], str(port))

    def test_missing_input_is_named_before_anything_starts(self):
        submitted = self.submit("echo started", inputs=[{"name": "data", "path": self.target.shared + "/not-there"}])
        self.assertEqual(submitted.wait(), 2, submitted.text())
        self.assertIn(self.target.shared + "/not-there", submitted.text("err"))
        self.nothing_left()

    def test_two_jobs_run_on_the_same_nodes_at_once(self):
        # Each listens where its TF_CONFIG says, as training programs do, until all four do.
        self.write("listen.py", """
import json, os, socket
config = json.loads(os.environ["TF_CONFIG"])
host, _, port = config["cluster"]["worker"][config["task"]["index"]].rpartition(":")
listener = socket.create_server((host, int(port)))
os.system(os.path.join(os.environ["BASIN_RUN_DIR"], "wait.sh"))
""")
        self.write("wait.sh", SCRIPT + "raise_flag up-$JOB-$me; until_flag up-a-$me; until_flag up-b-$me", 0o755)
        script = "mkdir -p outputs; echo $JOB >outputs/$me; exec python3 listen.py"
        both = [self.submit(script, name=f"{name}.json", environment_variables={"FLAGS": self.flags, "JOB": name}) for name in ("a", "b")]
        records = [self.ends(submitted) for submitted in both]
        addresses = [task["address"] for record in records for task in record["tasks"]]
        self.assertEqual(len(set(addresses)), 4, addresses)
        written = set()
        for folder in self.folders():
            with open(os.path.join(folder, "outputs/worker-0")) as first, open(os.path.join(folder, "outputs/worker-1")) as second:
                texts = {first.read(), second.read()}
            self.assertEqual(len(texts), 1)
            written |= texts
        self.assertEqual(written, {"a\n", "b\n"})
        self.nothing_left()

    def test_history_is_read_by_the_commands(self):
        record = self.ends(self.submit("mkdir -p outputs; echo model >outputs/model.txt; basin metric log accuracy 0.75 --step 7"))
        run = record["run_id"]
        self.assertEqual([one["run_id"] for one in self.asks("runs")], [run])
        shown = self.asks("show", "latest")
        self.assertEqual((shown["run_id"], shown["state"]), (run, "Completed"))
        self.assertIn("outputs/model.txt", shown["files"])
        self.assertEqual({(point["step"], point["value"], point["task"]) for point in self.asks("metrics", run)["accuracy"]},
                         {(7, 0.75, "worker/0"), (7, 0.75, "worker/1")})
        to = os.path.join(self.target.home, "model.txt")
        self.assertEqual(self.asks("download", run, "outputs/model.txt", "--to", to), {"path": to, "bytes": 6, "files": 1})
        with open(self.target.seen(to), encoding="ascii") as file:
            self.assertEqual(file.read(), "model\n")

    def test_token_is_in_files_of_its_owner_alone(self):
        submitted = self.submit(STAY)
        self.wait_until_up(submitted)
        token = self.read("token").strip()
        self.assertGreaterEqual(len(token), 32)
        seen = {}
        for pid, what in self.target.pids().items():
            for part in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{pid}/{part}", "rb") as file:
                        seen[f"{what} ({part})"] = file.read().decode(errors="replace")
                except (FileNotFoundError, ProcessLookupError):
                    pass  # it has just ended
        submitted.send(signal.SIGTERM)
        self.ends(submitted, 1, "Canceled")
        for place, _, names in os.walk(self.folder()):
            for name in names:
                path = os.path.join(place, name)
                if os.path.isfile(path) and name != "token":
                    with open(path, encoding="utf-8", errors="replace") as file:
                        seen[path] = file.read()
        self.assertGreaterEqual(len(seen), 10)
        self.assertEqual([where for where, text in seen.items() if token in text], [])

    def test_built_in_program_trains_with_ps(self):
        record = self.trains()
        self.assertEqual([task["role"] for task in record["tasks"]], ["ps", "worker", "worker"])
        self.nothing_left()

    def trains(self, ps=1):
        """An MLP of MODEL_BYTES on the little data set; 16 steps together, and each pulls and pushes all of it."""
        data = os.path.join(self.target.shared, "images")
        os.makedirs(self.target.seen(data), exist_ok=True)
        clusters.write_data(self.target.seen(data))
        submitted = self.submit(entry_script="basin:mlp", script_params={"--hidden": "4096", "--epochs": 1, "--batch-size": 32},
                                inputs=[{"name": "data", "path": data}], parameter_server_count=ps,
                                training={"rule": {"name": "sgd", "learning_rate": 0.05}})
        return self.ends(submitted)
