"""Imported by Python at start-up where this folder is on PYTHONPATH: `hybridrag.adapters.ingester` is the small one."""

import importlib.abc
import importlib.util
import sys
from pathlib import Path


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):  # type: ignore[no-untyped-def]
        if fullname != "hybridrag.adapters.ingester":
            return None
        return importlib.util.spec_from_file_location(fullname, Path(__file__).with_name("ingester.py"))


sys.meta_path.insert(0, _Finder())
