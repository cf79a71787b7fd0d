"""A short run of tests/fuzz/checkpoints.py: the same cases each time, in a process with limits of its own."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.fuzz import checkpoints, mutations
from tests.fuzz.seeds import seeds

ROOT = Path(__file__).resolve().parents[1]


def run(count: int, file: Path) -> dict:
    """The state after the runner's own command; a page test in this process may have put another ``__main__`` here."""
    command = [sys.executable, "-m", "tests.fuzz.checkpoints", "--count", str(count), "--state", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "SP_REAL_DATA"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text())


def test_two_hundred_spoilt_checkpoints(tmp_path):
    state = run(200, tmp_path / "state.json")
    assert state["failures"] == []
    assert state["outcomes"]["refused"] > 50 and state["outcomes"]["read"] > 20
    assert run(200, tmp_path / "state.json") == state  # nothing is run twice


def test_the_canary_can_sing(monkeypatch):
    """What the run looks for is heard: a name looked up, a file written."""
    import pickle

    canary = checkpoints.Canary()
    canary.armed = True
    pickle.loads(pickle.dumps(random.Random, 2))
    canary.armed = False
    assert canary.heard[0].startswith("pickle.find_class")


def test_cases_are_the_same_each_time():
    known = list(seeds().values())
    for number in range(30):
        one, two = (mutations.mutate(random.Random(number), known[number % len(known)], known) for _ in range(2))
        assert one == two
