"""Exit statuses and error classes."""

from __future__ import annotations

import inspect
import re

from _generate.text import docstring, roles, table
from fusionbench_core import errors


def exit_statuses() -> list[tuple[str, str]]:
    """`(status, meaning)` from the module's docstring."""
    return re.findall(r"^(\d+)\s{2,}(.+)$", errors.__doc__ or "", re.MULTILINE)


def error_classes() -> dict[str, str]:
    """The two tables, and how to raise one."""
    found = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, Exception)]
    rows = [
        (
            f"`{cls.__name__}`",
            f"`{cls.__bases__[0].__name__}`" if cls is not errors.FusionError else "",
            cls.exit_code,
            roles((inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")),
        )
        for cls in found
    ]
    return {
        "statuses": table(("status", "meaning"), exit_statuses()),
        "classes": table(("class", "is a", "status", "when"), rows),
        "raise": docstring(errors.FusionError),
    }
