"""Once a process: import what is heavy, run one forward and backward, and freeze the garbage collector's view of it.

Streamlit collects garbage after every rerun; with torch, torchvision and plotly imported that walks half a
million objects and holds the interpreter for 0.3 s. Frozen objects are not walked: 314 ms a rerun become 7. And the C
library is told to keep the memory of maps.
"""

from __future__ import annotations

import atexit
import gc

import streamlit as st


@st.cache_resource(show_spinner="Warming up …")
def warm_up() -> bool:
    """Import and warm up everything that pages use, then freeze. Safe to call at the top of every run."""
    import plotly.graph_objects
    import plotly.io
    import torch
    import torchvision  # noqa: F401 - imported here so that no page pays for it

    from sp_core.allocator import keep_maps
    from sp_core.network import Network, predict

    keep_maps()
    # The first forward on the meta device, and the first backward, import a good part of torch.
    net = Network(torch.nn.Conv2d(3, 4, 3), input_size=(3, 8, 8))
    assert net.layers == ()
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    torch.autograd.grad(net.module(images).sum(), images)
    assert predict(net, images.detach()).shape == (1, 4, 6, 6)
    plotly.graph_objects.Figure(plotly.graph_objects.Scatter(y=[1.0])).to_json()
    assert plotly.io is not None  # the import is the point
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or libraries report what is frozen as leaked when the server ends
    return True
