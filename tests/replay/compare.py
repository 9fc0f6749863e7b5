"""Compares the windows of `tidegate replay` with `resample` of pandas, on recordings of real sensors.

    compare.py TIDEGATE DIRECTORY

DIRECTORY is for files of its own. Ends with 1 at the first difference. What must be equal: which windows there are, and in each
of them count, min, max, first and last, to the last bit; sum, mean and stddev but for rounding; percentiles exactly up to
1,000 readings in a window, within 1 % beyond that.
"""

import json
import math
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

TIDEGATE, DIRECTORY = sys.argv[1], Path(sys.argv[2]).resolve()
FLOW = Path(__file__).with_name("windows.toml")
RECORDINGS = Path(find_spec("bokeh_sampledata").origin).with_name("_data")

# In tidegate's words and in those of pandas, whose days are those of a calendar.
SIZES = {"10m": "10min", "1h": "1h", "1d": "24h", "7d": "168h"}
# Windows with more readings than this have percentiles of a sketch.
EXACT = 1000


def sea():
    """A buoy's temperature each half an hour, with gaps, and one moment that comes twice."""
    table = pd.read_csv(RECORDINGS / "sea_surface_temperature.csv.gz")
    table.columns = ["time", "payload"]
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return table


def glucose():
    """A reading about every 5 minutes, at odd minutes and with many gaps; local times. Some readings are `nil`."""
    table = pd.read_csv(RECORDINGS / "CGM.csv.gz")
    table = table.rename(columns={"datetime": "time", "isig": "payload"})[["time", "payload"]]
    table["time"] = pd.to_datetime(table["time"])
    return table


def readings_of(table):
    """The rows with a time and a number."""
    return table.assign(payload=pd.to_numeric(table["payload"], errors="coerce")).dropna()


def replay(table, name, size, lateness="0s", options=()):
    """The windows of a table that is fed as it stands, and what was said on stderr."""
    path = DIRECTORY / name
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True, double_precision=15)
    command = [TIDEGATE, "replay", FLOW, "--feed", f"probe={path}", *options]
    environment = {**os.environ, "TIDEGATE_VAR_size": size, "TIDEGATE_VAR_lateness": lateness}
    ended = subprocess.run(command, env=environment, cwd=DIRECTORY, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{name}: replay ended with {ended.returncode}:\n{ended.stderr}")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    for line in lines:
        check(line["time"] == line["payload"]["end"], name, f"a result has its window's end as its time: {line}")
    return [line["payload"] for line in lines], ended.stderr


def expected(table, size):
    """What pandas computes, for windows in which there is a reading."""
    readings = table.sort_values("time", kind="stable").set_index("time")["payload"]
    windows = readings.resample(SIZES[size], origin="epoch", closed="left", label="left")
    found = windows.agg(["count", "sum", "mean", "min", "max", "std", "first", "last"])
    found = found[found["count"] > 0]
    by_value = readings.sort_values()
    groups = by_value.groupby(by_value.index.floor(SIZES[size]))
    for percent in (50, 95):
        # The value at rank percent/100 (n - 1), rounded down.
        rank = (groups.transform("size") - 1) * percent // 100
        value = by_value[groups.cumcount() == rank]
        found[f"p{percent}"] = value.set_axis(value.index.floor(SIZES[size]))
    return found


def compare(name, table, found, size):
    """Whether the windows that were found are those of the table."""
    reference = expected(table, size)
    starts = [pd.Timestamp(window["start"]) for window in found]
    missing = reference.index.difference(starts)
    unknown = pd.Index(starts).difference(reference.index)
    check(len(missing) == 0 and len(unknown) == 0, name, f"windows: {missing} are missing, {unknown} are unknown")
    check(len(starts) == len(set(starts)), name, "a window came twice")
    check(starts == sorted(starts), name, "windows came out of order")
    for start, row, window in zip(starts, reference.to_dict("records"), found):
        end = start + pd.Timedelta(SIZES[size])
        check(pd.Timestamp(window["end"]) == end, name, f"the window from {start} ends at {window['end']}")
        for statistic in ("count", "min", "max", "first", "last"):
            check(window[statistic] == row[statistic], name, f"{statistic} from {start}: {window[statistic]}, {row[statistic]}")
        for statistic, other in (("sum", "sum"), ("mean", "mean"), ("stddev", "std")):
            ours, theirs = window[statistic], row[other]
            is_same = ours is None if math.isnan(theirs) else is_near(ours, theirs, window)
            check(is_same, name, f"{statistic} from {start}: {ours}, {theirs}")
        for statistic in ("p50", "p95"):
            ours, theirs = window[statistic], row[statistic]
            allowed = 0 if row["count"] <= EXACT else 0.01 * abs(theirs) * (1 + 1e-6)
            check(abs(ours - theirs) <= allowed, name, f"{statistic} from {start}: {ours}, {theirs}")
    print(f"{name}, {size}: {len(found)} windows of {int(reference['count'].sum())} readings are equal")
    return len(found)


def is_near(ours, theirs, window):
    """But for what adding up in another order rounds off."""
    largest = max(abs(window["min"]), abs(window["max"]))
    return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-12 * largest)


def check(is_right, name, message):
    if not is_right:
        sys.exit(f"{name}: {message}")


def disordered(table, hours):
    """The same rows, each of them up to so much later in the file than its time says."""
    random = np.random.default_rng(7)
    shift = pd.to_timedelta(random.uniform(0, hours * 3600, len(table)), unit="s")
    order = (table["time"] + shift).argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True)


def within(table, size, lateness):
    """Rows that come before their window has closed: when time, less the lateness, has come to its end."""
    start = table["time"].dt.floor(SIZES[size])
    watermark = table["time"].cummax() - pd.Timedelta(lateness)
    return table[start + pd.Timedelta(SIZES[size]) > watermark]


def failures(said):
    found = re.search(r"`window` could not handle ([\d,]+) message", said)
    return int(found[1].replace(",", "")) if found else 0


def in_order():
    count = 0
    table = sea()
    seconds = table.assign(time=table["time"].astype("datetime64[ns, UTC]").astype("int64") / 1e9)
    abroad = table.assign(time=table["time"].dt.tz_convert("Asia/Kolkata"))
    for size in SIZES:
        for name, written in (("sea.csv", table), ("seconds.jsonl", seconds), ("abroad.csv", abroad)):
            found, said = replay(written, name, size)
            check("warning" not in said, name, said)
            count += compare(name, table, found, size)
    return count


def local():
    """As if they came from Sydney, where the clocks are put back and forward meanwhile."""
    table = glucose()
    # Of two times that are meant, the first.
    time = table["time"].dt.tz_localize("Australia/Sydney", ambiguous=np.full(len(table), True), nonexistent="NaT")
    utc = table.assign(time=time.dt.tz_convert("UTC"))
    left_out = int(utc["time"].isna().sum())
    no_numbers = int((utc.dropna()["payload"] == "nil").sum())
    check(left_out > 0 and no_numbers > 0, "local.csv", "the recording is not what it was")
    count = 0
    for size in SIZES:
        found, said = replay(table, "local.csv", size, options=["--time-zone", "Australia/Sydney"])
        check(f"{left_out} with a local time that does not exist" in said, "local.csv", said)
        check(failures(said) == no_numbers, "local.csv", said)
        count += compare("local.csv", readings_of(utc), found, size)
    return count


def out_of_order():
    count = 0
    in_utc = readings_of(glucose()).assign(time=lambda table: table["time"].dt.tz_localize("UTC"))
    for name, table in (("sea", sea()), ("glucose", in_utc)):
        late = disordered(table, 2)
        check(not late["time"].is_monotonic_increasing, name, "the rows are still in order")
        for size in SIZES:
            found, said = replay(late, f"late-{name}.csv", size, lateness="2h")
            check(failures(said) == 0, name, said)
            count += compare(f"{name}, late", late, found, size)
            found, said = replay(late, f"late-{name}.csv", size, options=["--reorder", "2h"])
            check("warning" not in said, name, said)
            count += compare(f"{name}, reordered", late, found, size)
            kept = within(late, size, "30min")
            found, said = replay(late, f"late-{name}.csv", size, lateness="30m")
            check(failures(said) == len(late) - len(kept), name, f"{len(late) - len(kept)} come too late: {said}")
            count += compare(f"{name}, later than that", kept, found, size)
    return count


print(f"{in_order() + local() + out_of_order()} windows are equal")
