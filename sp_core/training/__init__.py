"""Training the bundled checkpoints: recipes as data, the loop as a generator, a card beside the weights.

On a GPU, from the repository's folder::

    python -m sp_core train textures-alexnet --device cuda --out assets/checkpoints
    python -m sp_core train textures-vgg --device cuda --out assets/checkpoints
    python -m sp_core train textures-resnet --device cuda --out assets/checkpoints

On a CPU give ``--device cpu``, and ``--precision bfloat16`` where the processor has such instructions (measured with
AVX-512 BF16: 1.4 to 2 times as fast; the bundled files were made so, with one thread each). A run that was stopped,
even killed, goes on with ``--resume`` as if it had not been.

Only torch, numpy, pillow, safetensors and the standard library are imported here, so training runs on a bare
machine.
"""

from sp_core.training.comparing import Finished, compare
from sp_core.training.loop import Progress, train
from sp_core.training.measuring import measure
from sp_core.training.recipes import RECIPES, Recipe, recipe
from sp_core.training.tables import TABLES, Row, Table, table

__all__ = [
    "RECIPES",
    "TABLES",
    "Finished",
    "Progress",
    "Recipe",
    "Row",
    "Table",
    "compare",
    "measure",
    "recipe",
    "table",
    "train",
]
