"""An index as one Parquet file, for other programs: a row a patch.

The index itself is kept in ``.safetensors``, which every machine that can build one can write. ``pyarrow``, which
writes Parquet, comes with the app.

========================  ============  ================================================================================
column                    type          meaning
========================  ============  ================================================================================
``layer``                 string        the layer's name (dictionary encoded)
``channel``               int32         channel of the layer
``which``                 string        ``best`` (largest maxima first), ``worst`` (smallest first) or ``random``
``rank``                  int16         0 is the first of ``best`` and ``worst``; the place in the sample for ``random``
``image``                 int32         number of the image in the data set
``label``                 int32         its class, -1 where unknown
``activation``            float32       the channel's spatial maximum in that image
``y``, ``x``              int32         where in the layer's map; null for a vector
``top``, ``left``, …      int32         the receptive field there, half-open, in pixels of what the network sees; it may
                                        reach outside the image; null where it is the whole image
========================  ============  ================================================================================

The file's metadata hold ``index.json`` under the key ``structural_priors``: network, data set, settings, layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sp_core.errors import SpError
from sp_core.patches import store
from sp_core.patches.index import PatchIndex

SIDES = {"best": "top", "worst": "bottom", "random": "sample"}
_MAP = ("y", "x")
_FIELD = ("top", "left", "bottom", "right")


def write_parquet(index: PatchIndex, path: str | Path) -> int:
    """Write ``index`` to ``path``, one group of rows a layer; return the number of rows.

    Raises:
        SpError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SpError("Parquet needs pyarrow; install it with: pip install pyarrow") from error
    words, whole = pa.dictionary(pa.int32(), pa.string()), pa.int32()
    schema = pa.schema(
        [
            ("layer", words), ("channel", whole), ("which", words), ("rank", pa.int16()), ("image", whole),
            ("label", whole), ("activation", pa.float32()), *((name, whole) for name in (*_MAP, *_FIELD)),
        ],
        metadata={"structural_priors": json.dumps(store.read_header(index.folder), ensure_ascii=False)},
    )  # fmt: skip
    count = 0
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for layer in index.layers:
                for which in SIDES:
                    columns = _columns(index, layer, which)
                    rows = len(columns["channel"])
                    columns |= {name: pa.nulls(rows, whole) for name in schema.names if name not in columns}
                    for name, word in (("layer", layer), ("which", which)):
                        columns[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [word])
                    writer.write_table(pa.Table.from_pydict(columns, schema=schema))
                    count += rows
    except OSError as error:
        raise SpError(f"{path} cannot be written ({error}); name a file in a folder of yours.") from error
    return count


def _columns(index: PatchIndex, layer: str, which: str) -> dict[str, Any]:
    """The columns of one layer and one side that have values; one row a patch, the channels one after another."""
    kept = index.arrays(layer)
    value, place = kept[f"{SIDES[which]}_value"], kept[f"{SIDES[which]}_position"]
    image = np.broadcast_to(index.sample, value.shape) if which == "random" else kept[f"{SIDES[which]}_image"]
    channel, rank = (image >= 0).nonzero()  # -1: fewer images than places
    image = image[channel, rank]
    columns: dict[str, Any] = {
        "channel": channel, "rank": rank, "image": image, "label": index.labels(image),
        "activation": value[channel, rank],
    }  # fmt: skip
    shape = index.shape(layer)
    if len(shape) == 3:
        columns["y"], columns["x"] = np.divmod(place[channel, rank], shape[2])
        columns |= _fields(index.field(layer), channel, columns["y"], columns["x"])
    return columns


def _fields(row: dict[str, Any] | None, channel: NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> dict[str, Any]:
    """The receptive field at (y, x) of each channel, as the layer's law says it; {} where it is the whole image."""
    if row is None or row["status"] not in {"complete", "partial"}:
        return {}
    runs = row.get("channels") or [[int(channel.max(initial=0)) + 1, *row["size"], *row["start"]]]
    each = np.repeat(np.array([run[1:] for run in runs]), [run[0] for run in runs], axis=0)[channel]
    top = np.floor(each[:, 2] + y * row["stride"][0]).astype(np.int32)
    left = np.floor(each[:, 3] + x * row["stride"][1]).astype(np.int32)
    return {"top": top, "left": left, "bottom": top + each[:, 0], "right": left + each[:, 1]}
