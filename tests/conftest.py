"""Shared by all tests: fixed seeds, and where the real material lies, if anywhere."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Kernels on one thread: a shared one is cut by where memory lies and rounds anew each time, and small work waits.

    A module whose tests all want it says ``pytestmark = pytest.mark.usefixtures("one_thread")``.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weights and photos that ``SP_REAL_DATA`` names; tests that need it are skipped without."""
    folder = os.environ.get("SP_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SP_REAL_DATA is not set: no real weights and photos here")
    return Path(folder)
