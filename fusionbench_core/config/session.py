"""One use of Hydra: its global state is set up, locked, and put back as it was."""

from __future__ import annotations

import copy
import re
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fusionbench_core.config import safety
from fusionbench_core.config.overrides import COMPONENTS
from fusionbench_core.config.presets import Presets, check_size, unknown_preset
from fusionbench_core.errors import ConfigError, FusionError

if TYPE_CHECKING:
    from fusionbench_core.registry import Registry

_EMPTY = "fb_empty_root"
_NOT_IN_DEFAULTS = re.compile(r"Could not override '([^']+)'\.[ \n]")
_LOCK = threading.RLock()
_REFUSALS = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, UnicodeError, RecursionError)
_UNUSED = ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging", "env")
"""Hydra's own groups, which only `hydra.main` needs; reading them takes a third of the time."""


class Own(NamedTuple):
    """What a root config chooses without any override."""

    choices: dict[str, str | None]
    method: str | None


class Session:
    """Hydra with a search path and the registry's methods; use it as a context manager.

    Args:
        presets: The directories, the primary one first.
        searchpath: Extra entries of Hydra's search path, from the command line.
        registry: Its methods become choices of the group `method`.
        files: Group -> a YAML file that is a choice of it, by its path.
        root: The root config that will be composed, if any.
    """

    def __init__(
        self,
        presets: Presets,
        searchpath: list[str],
        registry: Registry,
        files: dict[str, Path],
        root: str | None = None,
    ) -> None:
        self._root = root
        self._presets = presets
        self._registry = registry
        self._files = files
        entries = [*searchpath, *(f"file://{directory}" for directory in presets.directories[1:])]
        quoted = ",".join("'{}'".format(entry.replace("'", r"\'")) for entry in entries)
        self._fixed = [f"hydra.searchpath=[{quoted}]", *(f"~hydra/{group}" for group in _UNUSED)]

    def __enter__(self) -> Session:
        _LOCK.acquire()
        self._store = ConfigStore.instance()
        self._hydra = GlobalHydra.instance().hydra
        top, _, rest = (self._root or _EMPTY).partition("/")
        touched = {f"{_EMPTY}.yaml", *COMPONENTS, top if rest else f"{top}.yaml"}
        self._kept = {key: copy.deepcopy(self._store.repo.get(key)) for key in touched}
        try:
            self._register()
            GlobalHydra.instance().clear()
            initialize_config_dir(str(self._presets.directories[0]), version_base="1.3", job_name="fb")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        GlobalHydra.instance().hydra = self._hydra
        for key, value in self._kept.items():
            self._store.repo.pop(key, None)
            if value is not None:
                self._store.repo[key] = value
        _LOCK.release()

    def compose(
        self, root: str | None, groups: list[str], values: list[str], own: Own | None = None
    ) -> tuple[DictConfig, list[Path]]:
        """The unresolved config and the files it comes from.

        Args:
            root: Name of the root config; None for an empty one.
            groups: `group=choice` words, whether or not the root's defaults list holds the group.
            values: Words in Hydra's own grammar.
            own: What :meth:`own` says of this root, where it is known.

        Raises:
            UnknownName: A defaults list names a method that no plugin provides.
            ConfigError: Hydra, OmegaConf or the YAML parser refuse.
        """
        name = root or _EMPTY
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                words = [*self._fixed, *self._signed(name, groups, own), *values]
                used = self._sources(name, words)
                config = hydra_compose(name, words)
        except _REFUSALS as error:
            raise self._explained(error, name) from error
        OmegaConf.set_struct(config, False)
        return config, used

    def alone(self, group: str, choice: str, values: list[str]) -> tuple[Any, list[Path]]:
        """One section as its choice and these words make it, without any root config."""
        registered = group == "method" and choice in self._registry.names("method")
        if registered and not values and self._presets.find(f"{group}/{choice}") is None:
            return {"name": choice}, []
        config, used = self.compose(None, [f"{group}={choice}"], values, Own({}, None))
        return config.get(group), used

    def own(self, root: str | None) -> Own | None:
        """What a root config chooses by itself; None if it cannot be composed without overrides."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config = hydra_compose(root or _EMPTY, self._fixed, return_hydra_config=True)
        except _REFUSALS:
            # Its own choice may be one that is not installed here; the one asked for may work all the same.
            return None
        choices = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
        method = config.get("method")
        return Own(choices, method.get("name") if isinstance(method, DictConfig) else None)

    def makes(self, own: Own | None, group: str, choice: str) -> bool:
        """Whether a root makes this choice itself, so that what it says about it still applies."""
        made = own.choices.get(group) if own else None
        if made is None and own is not None and group == "method":
            made = own.method
        return made is not None and self._canonical(group, str(made)) == self._canonical(group, choice)

    def resolve(self, config: DictConfig) -> dict[str, Any]:
        """Plain data with interpolations resolved.

        Raises:
            ConfigError: The config names code or a resolver, or a mandatory value is missing.
        """
        safety.check(OmegaConf.to_container(config, resolve=False))
        try:
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise self._explained(error, None) from error
        return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}

    def _register(self) -> None:
        self._store.store(name=_EMPTY, node={})
        self._register_root()
        for name in self._registry.names("method"):
            group, _, short = f"method/{name}".rpartition("/")
            full = self._registry.find("method", name).full_name
            self._store.store(group=group, name=short, node={"name": full})
        for group, file in self._files.items():
            self._store.store(group=group, name=f"file_{file.stem}", node=self._loaded(file))

    def _register_root(self) -> None:
        # Hydra reads the root before it knows of any directory but the primary one.
        file = self._presets.find(self._root) if self._root else None
        if file is None or self._root is None or file == self._presets.directories[0] / f"{self._root}.yaml":
            return
        group, _, name = self._root.rpartition("/")
        self._store.store(group=group or None, name=name, node=self._loaded(file))

    def _loaded(self, file: Path) -> DictConfig:
        try:
            loaded = OmegaConf.load(file)
        except _REFUSALS as error:
            raise self._explained(error, str(file)) from error
        if not isinstance(loaded, DictConfig):
            raise ConfigError("a config must be a section of keys and values", file=file)
        return loaded

    def _canonical(self, group: str, choice: str) -> str:
        if group != "method" or self._presets.find(f"{group}/{choice}"):
            return choice
        try:
            return self._registry.find("method", choice).full_name
        except FusionError:
            return choice

    def _signed(self, name: str, groups: list[str], own: Own | None) -> list[str]:
        """`+` before each group that the defaults list does not hold."""
        if not groups:
            return []
        if own is not None:
            return [word if word.partition("=")[0] in own.choices else f"+{word}" for word in groups]
        signed = list(groups)
        for _ in groups:
            try:
                self._defaults(name, [*self._fixed, *signed])
                break
            except ConfigCompositionException as error:
                match = _NOT_IN_DEFAULTS.search(f"{error}\n")
                if match is None:
                    raise
                signed = [f"+{word}" if word.partition("=")[0] == match.group(1) else word for word in signed]
        return signed

    def _defaults(self, name: str, words: list[str]) -> list[Any]:
        loader = GlobalHydra.instance().config_loader()
        return loader.compute_defaults_list(config_name=name, overrides=words, run_mode=RunMode.RUN).defaults

    def _sources(self, name: str, words: list[str]) -> list[Path]:
        paths = [item.config_path for item in self._defaults(name, words) if item.config_path]
        found = [self._presets.find(path) for path in dict.fromkeys([name, *paths])]
        files = [file for file in found if file is not None]
        for file in files:
            check_size(file)
            _refuse_hydra_settings(file)
        return files

    def _explained(self, error: Exception, name: str | None) -> FusionError:
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            return self._missing(error.missing_cfg_file, name)
        file = self._presets.find(name) or name if name and name != _EMPTY else None
        if isinstance(error, RecursionError):
            return ConfigError("the config is nested too deeply, or refers to itself", file=file)
        if isinstance(error, UnicodeError):
            return ConfigError("a config file is not text in UTF-8", file=file, why=str(error))
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            reason = f"{getattr(error, 'problem', error)}"
            return ConfigError(
                "a config file is not valid YAML", file=f"{mark.name}:{mark.line + 1}", why=reason
            )
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(("full_key:", "object_type=", "See https"))]
        return ConfigError(
            "the config cannot be composed",
            file=file,
            key=getattr(error, "full_key", None) or None,
            override=getattr(error, "override", None),
            why="\n".join(lines) or type(error).__name__,
            fix="quote values with special characters: 'key=\"value\"'"
            if hasattr(error, "override")
            else None,
        )

    def _missing(self, path: str, name: str | None) -> FusionError:
        path = path.removesuffix(".yaml")
        group, _, choice = path.partition("/")
        if group == "method" and choice:
            try:
                self._registry.find("method", choice)
            except FusionError as error:
                error.where.setdefault("file", str(self._presets.find(name) if name else ""))
                return error
        if choice:
            return unknown_preset(group, choice, self._presets.options(group))
        return unknown_preset("config", path, self._presets.roots())


def _refuse_hydra_settings(file: Path) -> None:
    loaded = OmegaConf.load(file)
    if isinstance(loaded, DictConfig) and "hydra" in loaded:
        raise ConfigError(
            "config files hold no `hydra` section",
            file=file,
            why="Hydra only composes here; it neither logs nor changes directories",
            fix="remove it; a search path goes on the command line: 'hydra.searchpath=[pkg://…]'",
        )
