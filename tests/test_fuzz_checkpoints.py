"""A short run of tests/fuzz/checkpoints.py: the same cases each time, in a process with limits of its own."""

import json
import random

from tests.fuzz import checkpoints, mutations
from tests.fuzz.seeds import seeds


def test_two_hundred_spoilt_checkpoints(tmp_path):
    state = checkpoints.run(200, None, tmp_path / "state.json", report=lambda *_, **__: None)
    assert state["failures"] == []
    assert state["outcomes"]["refused"] > 50 and state["outcomes"]["read"] > 20
    again = checkpoints.run(200, None, tmp_path / "state.json", report=lambda *_, **__: None)
    assert again == json.loads((tmp_path / "state.json").read_text()) == state  # nothing is run twice


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
