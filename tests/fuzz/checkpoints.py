"""Thousands of spoilt checkpoints against the reader: tensors or a sentence, nothing else, soon, in little memory.

    python -m tests.fuzz.checkpoints --count 20000 --state /tmp/checkpoints.json

Case N is the same file wherever the seeds are (but for TorchScript, whose code torch writes in another order each
time). Cases run in a process of their own with a limit of memory and an alarm; one that dies is written down with its
number, and the next process goes on behind it. The state file holds how far it came: the same command goes on there.
``--case N`` runs one case here, for looking into it.

In the process an audit hook listens for what reading must never do: look up a name of a pickle, run, import, write.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

MEMORY = 768 * 2**20  # above what the process has when it starts
SECONDS = 5
PATIENCE = 30  # before a process that does not answer even the alarm is killed
BATCH = 500
_FORBIDDEN = {
    "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
    "subprocess.Popen", "socket.connect", "exec", "marshal.loads", "ctypes.dlopen", "shutil.rmtree",
}  # fmt: skip


class Hang(BaseException):
    """The alarm: no ``except Exception`` may swallow it."""


class Canary:
    """Remembers what the process did while a file was read."""

    def __init__(self) -> None:
        self.armed, self.heard = False, []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.armed:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event in _FORBIDDEN or writes:
            self.heard.append(f"{event} {str(arguments)[:80]}")


def case(number: int, wild: str | None) -> tuple[str, bytes, dict[str, bytes]]:
    """The name of the seed, the spoilt bytes, and the files beside it."""
    from tests.fuzz.mutations import mutate
    from tests.fuzz.seeds import network, seeds, sharded

    dice = random.Random(f"checkpoint {number}")
    known = seeds(wild)
    name = dice.choice(list(known))
    parts = sharded(network().state_dict())[1] if name == "index" else {}
    data = known[name]
    if parts and dice.random() < 0.5:
        part = dice.choice(list(parts))
        parts[part] = mutate(dice, parts[part], list(known.values()))
    else:
        data = mutate(dice, data, list(known.values()))
    return name, data, parts


def attempt(number: int, wild: str | None, canary: Canary) -> tuple[str, str]:
    """What came of one case: ``read``, ``refused`` or what went wrong, and the words for it."""
    from sp_core.checkpoints.read import Checkpoint, read_bytes
    from sp_core.errors import SpError

    name, data, parts = case(number, wild)
    canary.heard.clear()
    outcome = "read", ""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    canary.armed = True
    try:
        found = read_bytes(data, f"{name}.pth", parts)
        if not isinstance(found, Checkpoint) or not found.tensors:
            outcome = "wrong", "no checkpoint"
        json.dumps([list(found.tensors), list(found.notes), found.summary(), dict(found.metadata)], allow_nan=False)
    except SpError as error:
        text = str(error)
        outcome = "refused", text
        if "more memory than there is" in text:
            outcome = "memory", text
        elif len(text) > 1500 or "Traceback" in text or text != text.encode("utf-8", "replace").decode():
            outcome = "wrong", ascii(text)
    except Hang:
        outcome = "hang", name
    except BaseException as error:  # noqa: BLE001 -- that is what is looked for
        outcome = "exception", f"{type(error).__name__}: {error}"[:300]
    canary.armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    if canary.heard:
        outcome = "executed", canary.heard[0]
    return outcome


def work(first: int, last: int, wild: str | None, pipe) -> None:
    """Run cases in this process and tell each outcome; called in a fresh process."""
    canary = prepare(wild)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for number in range(first, last):
        pipe.send((number, None, None, 0.0))
        began = time.perf_counter()
        kind, words = attempt(number, wild, canary)
        pipe.send((number, kind, words, time.perf_counter() - began))
    pipe.close()


def prepare(wild: str | None) -> Canary:
    """Everything imported and warm, the alarm set up, the canary listening."""
    import codecs
    import warnings

    import torch

    from sp_core.checkpoints.read import read_bytes
    from tests.fuzz.seeds import seeds

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    read_bytes(seeds(wild)["zip"])
    for name in ("raw_unicode_escape", "unicode_escape", "latin1", "ascii"):
        codecs.lookup(name)  # Python imports these when a pickle first needs them

    def ring(*_):
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    return Canary()


def run(count: int, wild: str | None, state_file: Path, report=print) -> dict:
    """Cases up to ``count``, going on where ``state_file`` says; returns the state."""
    state = {"next": 0, "outcomes": {}, "failures": [], "slowest": [0.0, -1], "seconds": 0.0, "messages": {}}
    if state_file.exists():
        state = json.loads(state_file.read_text())
    outcomes, messages = Counter(state["outcomes"]), Counter(state["messages"])
    while state["next"] < count:
        began = time.perf_counter()
        last = min(count, state["next"] + BATCH)
        here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=work, args=(state["next"], last, wild, there))
        process.start()
        there.close()
        at = None
        patience = 300  # to start; then for each case
        try:
            while state["next"] < last:
                if not here.poll(patience):
                    raise EOFError
                number, kind, words, seconds = here.recv()
                patience = PATIENCE
                if kind is None:
                    at = number
                    continue
                outcomes[kind] += 1
                if kind == "refused":
                    messages[_shape(words)] += 1
                elif kind != "read":
                    state["failures"].append([number, kind, words])
                state["slowest"] = max(state["slowest"], [round(seconds, 3), number])
                state["next"] = number + 1
        except EOFError:
            if at is None:
                raise RuntimeError("the process died before its first case") from None
            outcomes["died"] += 1
            state["failures"].append([at, "died", f"exit code {process.exitcode}"])
            state["next"] = at + 1
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
        state["outcomes"], state["seconds"] = dict(outcomes), state["seconds"] + time.perf_counter() - began
        state["messages"] = dict(messages.most_common(60))
        state_file.write_text(json.dumps(state, indent=1))
        report(f"{state['next']} of {count}: {dict(outcomes)}, slowest {state['slowest']}", flush=True)
    return state


def _shape(words: str) -> str:
    """A message without its own names and numbers, to be counted."""
    return "".join("#" if letter.isdigit() else letter for letter in words.split(".pth", 1)[-1])[:60]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--state", type=Path, default=Path("fuzz-checkpoints.json"))
    parser.add_argument("--case", type=int, help="run one case in this process and show what comes of it")
    args = parser.parse_args()
    wild = os.environ.get("SP_REAL_DATA")
    if args.case is not None:
        name, data, _ = case(args.case, wild)
        print(name, len(data), "bytes", data[:64])
        print(*attempt(args.case, wild, prepare(wild)))
        return
    state = run(args.count, wild, args.state)
    print(json.dumps({key: state[key] for key in ("outcomes", "slowest", "seconds", "failures")}, indent=1))
    sys.exit(bool(state["failures"]))


if __name__ == "__main__":
    main()
