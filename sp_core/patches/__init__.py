"""Maximally activating patches: one pass over a data set, then the pictures that drive any unit of any layer."""

from sp_core.patches.build import Progress, build_patch_index, merge
from sp_core.patches.index import Patch, PatchIndex, table
from sp_core.patches.parquet import write_parquet
from sp_core.patches.store import cache_folder

__all__ = ["Patch", "PatchIndex", "Progress", "build_patch_index", "cache_folder", "merge", "table", "write_parquet"]
