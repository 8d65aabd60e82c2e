"""All the names of a plugin, from the one its author chose."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass

from fusionbench_core.errors import ConfigError
from fusionbench_core.known import NAMESPACES
from fusionbench_core.plugins.namespaces import FORM, trouble

ALLOWED = "words of lower-case letters and digits joined by - or _, a letter first, e.g. my-method"
"""The form of a name, in words."""

_TAKEN = """
    Always Any Batch Checkpoint ClassificationTask CorruptFile Field Iterator Knows Literal Mapping
    ModelSource NotFound Path Sequence Tensor TensorGroup TensorMethod TaskCard ValidationError ValueError
    WithHead ENTRIES MODELS SHAPES SPLITS STATE VERSION WIDTHS
"""
TAKEN = frozenset(_TAKEN.split())
"""Names that the generated modules use themselves."""


@dataclass(frozen=True)
class Names:
    """What one name becomes.

    Attributes:
        distribution: As in `pip install`: `fb-my-method`.
        package: As in `import`: `fb_my_method`.
        namespace: Entry point, and short name of what it declares: `my_method`.
        cls: Name of the class: `MyMethod`.
        constant: Name of its record: `MY_METHOD`.
        title: For people: `My method`.
    """

    distribution: str
    package: str
    namespace: str
    cls: str
    constant: str
    title: str


def names_for(text: str) -> Names:
    """The names for `my-method`, `my_method` or `fb-my-method`.

    >>> names_for("fb-my-method").cls
    'MyMethod'

    Raises:
        ConfigError: if the name is malformed or taken, with one that would do.
    """
    namespace = re.sub(r"[-_]", "_", text).removeprefix("fb_")
    distribution = f"fb-{namespace.replace('_', '-')}"
    problem = _trouble(namespace, distribution)
    if problem:
        raise ConfigError(
            f"{text!r} cannot be a plugin's name", why=problem, fix=f"a name is {ALLOWED}{_instead(text)}"
        )
    words = namespace.split("_")
    return Names(
        distribution=distribution,
        package=f"fb_{namespace}",
        namespace=namespace,
        cls=_free("".join(word.capitalize() for word in words), "My"),
        constant=_free(namespace.upper(), "MY_"),
        title=" ".join(words).capitalize(),
    )


def _trouble(namespace: str, distribution: str) -> str | None:
    if not FORM.match(namespace):
        return "it is malformed"
    if keyword.iskeyword(namespace) or namespace in ("none", "true", "false"):
        return f"{namespace!r} is a word of Python"
    if namespace in NAMESPACES:
        return f"{NAMESPACES[namespace]} is a plugin of FusionBench itself; two of one name hide each other"
    return trouble(namespace, distribution)


def _free(name: str, prefix: str) -> str:
    return f"{prefix}{name}" if name in TAKEN else name


def _instead(text: str) -> str:
    # `MyMethod v2` -> `my-method-v2`
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text).lower()
    better = re.sub(r"[^a-z0-9]+", "-", apart).strip("-0123456789").removeprefix("fb-")
    namespace = better.replace("-", "_")
    fits = FORM.match(namespace) and not keyword.iskeyword(namespace) and better != text
    if namespace in NAMESPACES:
        better = f"my-{better}"
        return f"\ntry {better!r}"
    return f"\ndid you mean {better!r}?" if fits and not _trouble(namespace, f"fb-{better}") else ""
