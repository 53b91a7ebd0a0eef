"""Which place a folder is, whatever path leads to it: links and mounts are followed."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from hybridrag.model.address import Address
from hybridrag.model.data import Slot

ENGINE = "json"


def addresses(folder: Path, slots: Collection[Slot]) -> dict[Slot, Address]:
    """One folder for all slots."""
    return dict.fromkeys(slots, folder_address(folder))


def folder_address(folder: Path) -> Address:
    """Device and inode, or the path as long as the folder does not exist."""
    try:
        stat = folder.stat()
    except OSError:
        return Address(engine=ENGINE, server="", area=os.path.realpath(folder))
    return Address(engine=ENGINE, server=str(stat.st_dev), area=str(stat.st_ino))
