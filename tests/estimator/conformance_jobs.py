"""What a job may ask for, seen by its scripts: roles, a ps of its own, a place to resume from, event files."""

import json
import os

from conformance_case import ConformanceCase, processes

# The low-level sample of the Azure page, as far as it asks for its cluster.
PAGE_SCRIPT = """
import json
import os

tf_config = os.environ.get('TF_CONFIG')
if not tf_config or tf_config == "":
    raise ValueError("TF_CONFIG not found.")
cluster = json.loads(tf_config).get('cluster')
"""
# Every byte, zeros and line ends among them.
EVENTS = bytes(range(256)) * 40 + b"\r\n\r\r\n\0"


class Jobs(ConformanceCase):
    def test_chief_is_first_among_the_training_tasks(self):
        record = self.ends(self.submit("""
mkdir -p outputs
printf %s "$TF_CONFIG" >outputs/$me.json
echo "$BASIN_ROLE $BASIN_TASK_INDEX $BASIN_RANK of $BASIN_WORLD_SIZE" >outputs/$me.txt
echo "of $me" >outputs/model.txt
""", chief_count=1))
        self.assertEqual([(task["role"], task["index"], task["exit_code"]) for task in record["tasks"]],
                         [("chief", 0, 0), ("worker", 0, 0), ("worker", 1, 0)])
        addresses = {name: self.task(record, name)["address"] for name in ("chief-0", "worker-0", "worker-1")}
        for rank, name in enumerate(addresses):
            role, index = name.split("-")
            self.assertEqual(json.loads(self.read("outputs", f"{name}.json")),
                             {"cluster": {"chief": [addresses["chief-0"]], "worker": [addresses["worker-0"], addresses["worker-1"]]},
                              "task": {"type": role, "index": int(index)}})
            self.assertEqual(self.read("outputs", f"{name}.txt"), f"{role} {index} {rank} of 3\n")
        # What the chief writes is the run's; the others' of the same name lie beside it.
        self.assertEqual(self.read("outputs/model.txt"), "of chief-0\n")
        self.assertEqual(self.read("outputs/by-task/worker-0/model.txt"), "of worker-0\n")
        self.nothing_left()

    def test_script_that_is_a_ps_is_stopped_once_the_workers_are_done(self):
        # ps 0 ends by SIGTERM itself, ps 1 knows nothing of it.
        record = self.ends(self.submit("""
echo "$me is up"
if [ $me = ps-0 ]; then trap 'echo "$me says goodbye"; exit 0' TERM; fi
if [ $BASIN_ROLE = ps ]; then raise_flag up-$me; while :; do sleep 0.05; done; fi
until_flag up-ps-0; until_flag up-ps-1
echo "$me has trained"
""", parameter_server="script", parameter_server_count=2))
        self.assertEqual([(task["role"], task["index"]) for task in record["tasks"]], [("ps", 0), ("ps", 1), ("worker", 0), ("worker", 1)])
        self.assertEqual([self.task(record, name).get("exit_code") for name in ("ps-0", "worker-0", "worker-1")], [0, 0, 0])
        self.assertEqual(self.task(record, "ps-1")["signal"], 15)
        self.assertIn("ps-0 says goodbye", self.read("logs/ps-0.txt"))
        self.assertIn("worker-1 has trained", self.read("logs/worker-1.txt"))
        self.nothing_left()

    def test_script_is_told_where_to_resume_from(self):
        place = os.path.join(self.target.shared, "earlier")
        os.makedirs(self.target.seen(place), exist_ok=True)
        with open(self.target.seen(os.path.join(place, "step")), "w", encoding="ascii") as file:
            file.write("1200\n")
        self.ends(self.submit('echo "got $*"; echo "resumes at $(cat "$4/step")"', script_params={"--rate": 0.1}, resume_from=place))
        for me in ("worker-0", "worker-1"):
            self.assertEqual(self.read("logs", f"{me}.txt"), f"got --rate 0.1 --resume-from {place}\nresumes at 1200\n")

    def test_event_files_of_a_script_stream_and_are_kept_byte_by_byte(self):
        half = len(EVENTS) // 2
        self.write("events.bin", "")
        with open(self.target.seen(os.path.join(self.source, "events.bin")), "wb") as file:
            file.write(EVENTS)
        submitted = self.submit(f"""
mkdir -p logs/train
head -c {half} events.bin >logs/train/events.out.tfevents.$BASIN_RANK
raise_flag up-$me; until_flag go
tail -c +{half + 1} events.bin >>logs/train/events.out.tfevents.$BASIN_RANK
""")
        self.wait_until_up(submitted)
        places = ["logs/train/events.out.tfevents.0", "logs/worker-1/train/events.out.tfevents.1"]
        for place in places:
            processes.wait_until(lambda: self.content(place) == EVENTS[:half], f"the first half of {place} has come")
        self.wait_for_state("Running")  # a loaded node may not have been heard for a moment
        self.raise_flag("go")
        record = self.ends(submitted)
        for place in places:
            self.assertTrue(self.content(place) == EVENTS, f"{place} differs")
        self.assertLessEqual(set(places), set(self.asks("show", record["run_id"])["files"]))

    def content(self, place):
        try:
            with open(os.path.join(self.folder(), place), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def test_without_a_backend_there_is_no_cluster_and_the_script_says_so_itself(self):
        self.write("main.py", PAGE_SCRIPT)
        job = self.job(entry_script="main.py", distributed_backend=None, parameter_server_count=None, worker_count=None, node_count=None)
        # What the submitter's shell has is not the tasks'.
        submitted = self.basin("submit", job, "--json", *self.target.submit_flags, TF_CONFIG='{"cluster": {"worker": ["h9:1"]}}')
        record = self.ends(submitted, 1, "Failed")
        self.assertEqual([task["exit_code"] for task in record["tasks"]], [1])
        self.assertIn("ValueError: TF_CONFIG not found.", submitted.text("err"))
        self.nothing_left()
