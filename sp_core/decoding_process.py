"""Decoding in a process of its own, which is stopped when it takes too long or too much memory.

No check of a header can bound what a file costs: 64 MB hold millions of JPEG markers, of TIFF tags that all point to
the same megabytes, or hundreds of progressive scans. So untrusted bytes go to a helper process over a pipe and pixels
come back as plain bytes. A crash of a native library ends the helper, not the server. Helpers are kept for the next
image; where ``resource`` is missing (Windows) only time is bounded.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from PIL import Image

from sp_core.decoding import MAX_MEMORY, MAX_PIXELS, WHITE, Decoded, decode
from sp_core.errors import SpError

DEADLINE = 4.0  # seconds; with what it takes to stop a helper on a busy machine, an answer is there within 5
STARTING = 60.0  # seconds for our own code to be imported, on a busy machine
AT_ONCE = max(4, os.cpu_count() or 1)

_turns = threading.BoundedSemaphore(AT_ONCE)
_idle: list[_Helper] = []


def decode_apart(data: bytes, name: str = "The image", background: tuple[int, int, int] = WHITE) -> Decoded:
    """As :func:`sp_core.decoding.decode`, within ``DEADLINE`` seconds and ``MAX_MEMORY`` bytes, or SpError.

    At most ``AT_ONCE`` images are decoded at a time; further threads wait for their turn, which does not count.
    """
    with _turns:
        helper = _take()
        try:
            answer = helper.ask(data, name, background)
        except SpError:
            _idle.append(helper)
            raise
        except (OSError, EOFError, ValueError, TypeError, LookupError, struct.error) as error:
            helper.close()
            if helper.late:
                raise SpError(f"{name} takes longer than {DEADLINE:g} s to decode; make it smaller.") from error
            raise SpError(f"{name} made the decoder stop; save it again as PNG or JPEG.") from error
        except BaseException:  # interrupted between question and answer: the pipe is out of step
            helper.close()
            raise
        _idle.append(helper)
        return answer


def _take() -> _Helper:
    with contextlib.suppress(IndexError):
        while True:
            helper = _idle.pop()
            if helper.process.poll() is None:
                return helper
            helper.close()
    return _Helper()


def _forget() -> None:
    """A forked child must not talk into its parent's pipes, nor wait for its threads."""
    global _turns  # noqa: PLW0603 - a lock that was held at the fork would be held for ever
    _idle.clear()
    _turns = threading.BoundedSemaphore(AT_ONCE)


def _close_all() -> None:
    while _idle:
        _idle.pop().close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Helper:
    """One helper process, seen from the server's side."""

    def __init__(self) -> None:
        self.late = False
        root = str(Path(__file__).resolve().parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sp_core.decoding_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libtiff prints about damaged files is for nobody
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self.process.stdin and self.process.stdout
        self.questions, self.answers = self.process.stdin, self.process.stdout
        try:
            with self._within(STARTING):
                _receive(self.answers, 0)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Any:
        timer = threading.Timer(seconds, self._stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop(self) -> None:
        self.late = True
        self.process.kill()

    def ask(self, data: bytes, name: str, background: tuple[int, int, int]) -> Decoded:
        with self._within(DEADLINE):
            asked = {"name": name, "background": background, "seconds": DEADLINE}
            _send(self.questions, json.dumps(asked).encode(), data)
            self.questions.flush()
            found = json.loads(_receive(self.answers, 2**16))
            if "error" in found:
                raise SpError(str(found["error"]))
            width, height = (int(side) for side in found["size"])
            if not 0 < width * height <= MAX_PIXELS:
                raise ValueError("more pixels than there can be")
            pictures = [self._picture(width, height) for _ in range(1 + bool(found["stored"]))]
        return Decoded(pictures[0], pictures[1] if found["stored"] else None, tuple(map(str, found["notes"])))

    def _picture(self, width: int, height: int) -> Image.Image:
        return Image.frombytes("RGB", (width, height), _receive(self.answers, 3 * width * height))

    def close(self) -> None:
        self.process.kill()
        for pipe in (self.questions, self.answers):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()


def _send(pipe: IO[bytes], *parts: bytes) -> None:
    for part in parts:
        pipe.write(struct.pack(">Q", len(part)))
        pipe.write(part)


def _receive(pipe: IO[bytes], most: int) -> bytes:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError("the other side has ended")
    (length,) = struct.unpack(">Q", head)
    if length > most:
        raise ValueError("a longer answer than there can be")
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError("the other side has ended")
    return data


# --- in the helper process ------------------------------------------------------------------------------------------


def _limit() -> None:
    """Bound this process: memory, no core files, and no life of its own when the terminal is interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def _serve() -> None:
    """Answer one question after the other until the pipe is closed."""
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not end up among the answers
    _limit()
    Image.init()
    _send(answers, b"")
    answers.flush()
    while True:
        try:
            asked = json.loads(_receive(questions, 2**16))
        except EOFError:
            return
        if hasattr(signal, "alarm"):
            signal.alarm(int(asked["seconds"]) + 2)  # where the one that asked is no longer there to end this
        try:
            data = _receive(questions, 2**32)
            found = decode(data, asked["name"], tuple(asked["background"]))
            del data
            head = {"size": found.image.size, "stored": found.stored is not None, "notes": found.notes}
            _send(answers, json.dumps(head).encode())
            for picture in filter(None, (found.image, found.stored)):
                _send(answers, picture.tobytes())
        except SpError as error:
            _send(answers, json.dumps({"error": str(error)}).encode())
        answers.flush()
        if hasattr(signal, "alarm"):
            signal.alarm(0)


if __name__ == "__main__":
    _serve()
