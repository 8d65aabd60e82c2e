"""Which plugins the user wants: `FB_PLUGINS`, `--no-plugins`, and the switched-off list."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fusionbench_core import places
from fusionbench_core.errors import ConfigError, OutputError, UnknownName
from fusionbench_core.plugins.discovery import namespace_of
from fusionbench_core.plugins.plugin import Plugin
from fusionbench_core.suggest import did_you_mean

ALLOW = "FB_PLUGINS"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to switch off, and why.

    Args:
        allowed: Namespaces to load; None for all.
        disabled: Namespaces switched off with `fb plugin disable`.
        reason: Why a namespace outside `allowed` is off.
    """

    allowed: frozenset[str] | None = None
    disabled: frozenset[str] = frozenset()
    reason: str = ""

    def apply(self, plugins: Iterable[Plugin]) -> list[Plugin]:
        """The plugins, with those that are not wanted marked `disabled`."""
        return [self._judge(plugin) for plugin in plugins]

    def _judge(self, plugin: Plugin) -> Plugin:
        if self.allowed is not None and plugin.namespace not in self.allowed:
            return replace(plugin, status="disabled", cause=self.reason)
        if plugin.namespace in self.disabled:
            return replace(plugin, status="disabled", cause=f"switched off in {settings_file()}")
        return plugin


def selection(installed: Sequence[Plugin], *, no_plugins: bool = False) -> Selection:
    """The user's choice from the command line, the environment and the settings file.

    Raises:
        ConfigError: `FB_PLUGINS` names a plugin that is not installed, or the settings file is malformed.
    """
    if no_plugins:
        return Selection(allowed=frozenset(), reason="--no-plugins")
    value = os.environ.get(ALLOW)
    if value is None:
        return Selection(disabled=disabled())
    names = [name.strip() for name in value.split(",") if name.strip()]
    allowed = frozenset(known(name, installed, where=ALLOW) for name in names)
    # Naming a plugin in the environment is the more explicit wish, so it wins over the settings file.
    return Selection(allowed=allowed, reason=f"{ALLOW}={value!r} does not name it")


def known(name: str, installed: Iterable[Plugin], *, where: str | None = None) -> str:
    """The namespace that a user means by a namespace or a distribution's name.

    Raises:
        UnknownName: No installed plugin is called so.
    """
    namespaces = [plugin.namespace for plugin in installed]
    namespace = namespace_of(name)
    if namespace in namespaces:
        return namespace
    raise UnknownName(
        f"no installed plugin is called {name!r}",
        variable=where,
        why=f"installed are: {', '.join(namespaces) or 'none'}",
        fix=did_you_mean(namespace, namespaces) or "fb plugin list shows the installed plugins",
    )


def settings_file() -> str:
    """Where switched-off plugins are kept."""
    return os.path.join(places.config_home(), "plugins.json")


def disabled() -> frozenset[str]:
    """Namespaces switched off with `fb plugin disable`.

    Raises:
        ConfigError: The settings file is malformed.
    """
    file = settings_file()
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
    except OSError:
        return frozenset()
    try:
        names = json.loads(text)["disabled"]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("`disabled` must list names")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "the plugin settings are malformed", file=file, why=repr(error), fix=f"delete {file}"
        ) from error
    return frozenset(names)


def switch(namespace: str, *, on: bool) -> None:
    """Switch one plugin on or off for all later commands.

    Raises:
        OutputError: The settings file cannot be written.
    """
    names = disabled() - {namespace} if on else disabled() | {namespace}
    file = settings_file()
    try:
        places.write(file, json.dumps({"disabled": sorted(names)}, indent=2) + "\n")
    except OSError as error:
        raise OutputError("the plugin settings cannot be written", file=file, why=str(error)) from error
