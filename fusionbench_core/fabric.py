"""Lightning Fabric, without what its import brings along and a run does not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@cache
def fabric_class() -> type[Fabric]:
    """`lightning.fabric.Fabric`, imported when it is first asked for.

    The package around Fabric imports the trainer, and with it torchmetrics, torchvision, scipy and half of
    transformers: seconds in which a training could have run. The trainer is put off until somebody asks for
    it. Fabric itself imports torchmetrics to ask for its version, which is told by its metadata as well.
    """
    if "lightning" not in sys.modules:
        _put_off("lightning")
    with _versions_from_metadata():
        from lightning.fabric import Fabric
    return Fabric


def _put_off(name: str) -> None:
    """Make a package known, so that its parts can be imported; it is run when somebody asks it for more."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return
    package: Any = module_from_spec(spec)
    run, package.__version__ = spec.loader.exec_module, version(name)

    def missing(attribute: str) -> Any:
        # Names that whoever goes through all modules asks for, and parts that are being imported.
        if (attribute.startswith("__") and attribute != "__all__") or f"{name}.{attribute}" in sys.modules:
            raise AttributeError(attribute)
        if vars(package).pop("__getattr__", None) is not None:
            run(package)
        return getattr(package, attribute)

    package.__getattr__ = missing
    sys.modules[name] = package


@contextmanager
def _versions_from_metadata() -> Iterator[None]:
    """Within this, Lightning compares versions of packages without importing them."""
    from lightning_utilities.core import imports

    known = imports.compare_version
    imports.compare_version = _compare_version
    try:
        yield
    finally:
        imports.compare_version = known


def _compare_version(
    package: str, op: Callable[[Any, Any], bool], wanted: str, use_base_version: bool = False
) -> bool:
    """Whether `op(version of package, wanted)` holds; false if there is no such package."""
    from packaging.version import Version

    try:
        found = Version(version(package))
    except PackageNotFoundError:
        return False
    return op(Version(found.base_version) if use_base_version else found, Version(wanted))
