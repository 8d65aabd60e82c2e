"""What the core knows about one plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fusionbench_core.records import Origin

Status = Literal["found", "ok", "disabled", "broken", "incompatible", "conflict"]

WAYS_OUT = {
    "broken": (
        "{first}\n"
        "or upgrade it: pip install --upgrade {distribution}\n"
        "or switch it off: fb plugin disable {namespace}"
    ),
    "incompatible": (
        "upgrade the plugin: pip install --upgrade {distribution}\n"
        "or install a core it accepts: pip install 'fusionbench-core{requires}'\n"
        "or switch it off: fb plugin disable {namespace}"
    ),
    "disabled": (
        "switch it on: fb plugin enable {namespace}\n"
        "or name it in FB_PLUGINS, where that is set\n"
        "or leave out --no-plugins"
    ),
    "conflict": "uninstall all but one of the distributions that claim the namespace {namespace}",
}
"""What to do about a plugin that cannot be used, by status."""

LOCAL_WAY_OUT = "mend the file, or leave out --plugin"


@dataclass(frozen=True, kw_only=True)
class HookImplementation:
    """One hook function of one plugin, with the arguments it asks for."""

    hook: str
    function: Callable[..., Any]
    arguments: tuple[str, ...] = ()

    def __call__(self, **available: Any) -> Any:
        return self.function(*(available[name] for name in self.arguments))


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One plugin: where it comes from, whether it works, and what it provides.

    Args:
        namespace: First part of the full names of what it provides.
        distribution: Name of the installed distribution, or the path of a local file.
        version: Version of the distribution.
        module: The light module that the entry point names.
        requires: The versions of `fusionbench-core` it accepts, e.g. `>=1.0,<2`; empty for any.
        status: `found` before loading; then `ok`, or the reason why it cannot be used.
        cause: One line on what is wrong.
        traceback: The full traceback, where importing or a hook raised.
        load_ms: Time spent importing the module and calling its declarations.
        printed: What it wrote to the standard streams meanwhile.
        records: Kind -> what it declared. Only an `ok` plugin's records can be used.
        hooks: Hook name -> implementation.
        metadata: The metadata files that these facts were read from.
    """

    namespace: str
    distribution: str
    version: str = ""
    module: str = ""
    requires: str = ""
    status: Status = "found"
    cause: str = ""
    traceback: str = field(default="", repr=False)
    load_ms: float = 0.0
    printed: str = field(default="", repr=False)
    records: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    hooks: Mapping[str, HookImplementation] = field(default_factory=dict, repr=False)
    metadata: tuple[str, ...] = field(default=(), repr=False)
    local: bool = False

    @property
    def origin(self) -> Origin:
        """What each of its records carries."""
        return Origin(
            namespace=self.namespace,
            distribution=self.distribution,
            version=self.version,
            module=self.module,
        )

    @property
    def counts(self) -> dict[str, int]:
        """How many records of each kind it declares."""
        return {kind: len(records) for kind, records in self.records.items() if records}

    @property
    def fix(self) -> str:
        """The ways out of its status; empty where nothing is wrong."""
        if self.local:
            return LOCAL_WAY_OUT
        text = WAYS_OUT.get(self.status, "")
        distribution = self.distribution.partition(", ")[0]
        missing = self.cause.startswith(("ImportError", "ModuleNotFoundError"))
        return text.format(
            first=f"install what is missing: pip install {distribution}"
            if missing
            else f"see where it fails: fb plugin info {self.namespace}",
            distribution=distribution,
            namespace=self.namespace,
            requires=self.requires,
        )
