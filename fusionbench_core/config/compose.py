"""Compose a config from presets, files and command-line overrides, as FusionBench's users type them.

Hydra's compose API does the composing and nothing else: no logging, no working directory, no
instantiation. Every registered method is a choice of the group `method` without a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.config import overrides as override_words
from fusionbench_core.config.overrides import COMPONENTS, Request
from fusionbench_core.config.presets import Presets, check_size, unknown_preset
from fusionbench_core.config.safety import refuse_silent_trust
from fusionbench_core.errors import ConfigError

if TYPE_CHECKING:
    from fusionbench_core.config.session import Session
    from fusionbench_core.registry import Registry


@dataclass(frozen=True)
class Composed:
    """A composed config.

    Args:
        values: Plain, resolved data; `method.name` is a full name.
        files: The YAML files it comes from, the root config first.
        directory: The user's directory of configs, if there is one.
    """

    values: dict[str, Any]
    files: tuple[Path, ...]
    directory: Path | None

    def file_of_values(self, overrides: Sequence[str]) -> Path | None:
        """The root config's file, to name where a value is wrong; none if values were typed.

        A value that was typed is in no file, so then none is blamed.
        """
        typed = any("." in word.partition("=")[0] for word in overrides)
        return self.files[0] if self.files and not typed else None


def compose(
    overrides: Sequence[str] = (),
    config_path: Path | str | None = None,
    config_name: str | None = None,
    registry: Registry | None = None,
) -> Composed:
    """Compose one run's config.

    Args:
        overrides: `method=ties_merging`, `method.density=0.2`, `modelpool=./mine.yaml`, `taskpool=null`, …
        config_path: The user's directory of configs, searched first; or one file, which is then the root.
        config_name: The root config; by default the one that an installed plugin offers.
        registry: Where names come from; by default the installed plugins.

    Raises:
        UnknownName, NameConflict, PluginBroken: A method that cannot be used is named.
        ConfigError: Anything else that is wrong with the words or the files.
    """
    if registry is None:
        from fusionbench_core.registry import default_registry

        registry = default_registry()
    directory, config_name = _locate(config_path, config_name)
    presets = Presets.over(directory, registry.all("config"))
    request = override_words.sort(overrides, presets.is_group)
    files: dict[str, Path] = {}
    choices = {
        group: None if choice is None else _choice(group, choice, presets, registry, files)
        for group, choice in request.choices.items()
    }
    root = _root(config_name, presets, request, registry)

    from fusionbench_core.config.session import Session

    with Session(presets, request.searchpath, registry, files, root) as session:
        config, used = _assemble(session, root, request, choices)
        values = session.resolve(config)
    if config_name is None and presets.find("config") is None:
        _leave_out_foreign_tasks(values, request)
    refuse_silent_trust(values, overrides)
    stages = values.get("stages")
    for each in [values, *(stages.values() if isinstance(stages, dict) else ())]:
        for group in COMPONENTS if isinstance(each, dict) else ():
            if group in each:
                each[group] = _section(group, each[group], registry)
    used = list(dict.fromkeys([*used, *files.values()]))
    return Composed(values=values, files=tuple(used), directory=directory)


def _locate(config_path: Path | str | None, config_name: str | None) -> tuple[Path | None, str | None]:
    if config_name is not None and config_name.endswith((".yaml", ".yml")):
        named = Path(config_name)
        if config_path is None and named.is_file():
            return named.parent, named.stem
        config_name = config_name.rpartition(".")[0]
    if config_path is None:
        return None, config_name
    path = Path(config_path).expanduser()
    if path.is_file() and config_name is None:
        return path.parent, path.stem
    if not path.is_dir():
        raise ConfigError(
            f"there is no config directory {str(path)!r}",
            why="--config-path names a directory of YAML files, or one file",
            fix="check the path, or leave it out to use the presets that `fb list configs` shows",
        )
    return path, config_name


def _root(name: str | None, presets: Presets, request: Request, registry: Registry) -> str | None:
    """The root config's name; None for an empty root."""
    if name is not None:
        file = presets.find(name)
        if file is None:
            raise unknown_preset("config", name, presets.roots())
        check_size(file)
        return name
    # A file `config.yaml` in the user's own directory is what Hydra's users expect to be taken.
    defaults = {
        record.default: record.origin.distribution if record.origin else ""
        for record in registry.all("config")
        if record.default
    }
    if presets.find("config") is not None:
        return "config"
    if len(defaults) > 1:
        offers = "\n".join(f"{default} ({who})" for default, who in sorted(defaults.items()))
        raise ConfigError(
            "several plugins offer a default config", why=offers, fix="choose one with --config-name"
        )
    if defaults:
        default = next(iter(defaults))
        if presets.find(default) is None:
            raise unknown_preset("config", default, presets.roots())
        return default
    if request.choices.get("modelpool"):
        return None
    raise ConfigError(
        "nothing says what to run",
        why="no config was named, and no installed plugin offers a default one",
        fix="name one: --config-path DIR --config-name NAME, or method=… modelpool=…\n"
        "or install a plugin with presets: pip install fb-clip-tasks",
    )


def _choice(group: str, choice: str, presets: Presets, registry: Registry, files: dict[str, Path]) -> str:
    """Hydra's name for a choice, checked before anything is composed."""
    preset = presets.find(f"{group}/{choice}")
    if preset is not None:
        check_size(preset)
        return choice
    if choice.endswith((".yaml", ".yml")):
        file = Path(choice).expanduser()
        if not file.is_file():
            raise ConfigError(f"{group}={choice}: there is no such file", file=file.resolve())
        check_size(file)
        files[group] = file.resolve()
        return f"file_{file.stem}"
    if group == "method":
        return registry.find("method", choice).full_name
    raise unknown_preset(group, choice, presets.options(group))


def _assemble(
    session: Session, root: str | None, request: Request, choices: dict[str, str | None]
) -> tuple[Any, list[Path]]:
    """The composed config, each component replaced whole where another one was chosen.

    Values that the root config sets for its own method would be unknown to another method; so they
    are kept only if the choice on the command line is the one that the config makes itself.
    """
    given = {group: choice for group, choice in choices.items() if choice is not None}
    groups = [*_words(given), *request.groups]
    own = session.own(root) if groups else None
    config, used = session.compose(root, groups, request.values, own)
    for group, choice in given.items():
        if root is None or session.makes(own, group, choice):
            continue
        config[group], more = session.alone(group, choice, request.values_of(group))
        used += more
    for group, choice in choices.items():
        if choice is None:
            config[group] = None
    return config, used


def _leave_out_foreign_tasks(values: dict[str, Any], request: Request) -> None:
    """Take a plugin's default tasks away from a file of the user's own models, if none is for a task of them.

    Nobody asked for these tasks, and models of another kind fail at them after they were fused.
    """
    file = (request.choices.get("modelpool") or "").endswith((".yaml", ".yml"))
    if not file or "taskpool" in request.choices or request.values_of("taskpool"):
        return
    models, tasks = values.get("modelpool"), values.get("taskpool")
    if not isinstance(models, dict) or not isinstance(tasks, dict):
        return
    names, data, known = (
        _mapping(section) for section in (models.get("models"), models.get("data"), tasks.get("tasks"))
    )
    if not {data.get(name, name) for name in names} & known.keys():
        values["taskpool"] = None


def _mapping(section: Any) -> dict[str, Any]:
    return section if isinstance(section, dict) else {}


def _words(choices: dict[str, str]) -> list[str]:
    return [f"{group}={choice}" for group, choice in choices.items()]


def _section(group: str, section: Any, registry: Registry) -> Any:
    if isinstance(section, str) and group == "method":
        section = {"name": section}
    if section is None or section == {}:
        return None
    if not isinstance(section, dict):
        raise ConfigError(
            f"{group} must be a section, not {section!r}",
            fix=f"put a preset under `defaults:` as `- {group}: {section}`, or choose it: {group}={section}",
        )
    if group == "method" and "name" in section:
        record = registry.find("method", str(section["name"]))
        section = {**section, "name": record.full_name}
    return section


def load_preset(group: str, name: str, registry: Registry) -> dict[str, Any]:
    """One preset alone, resolved: `load_preset("taskpool", "embedded_text", registry)`.

    Raises:
        ConfigError: if there is no such preset, or it is malformed.
    """
    from fusionbench_core.config.session import Own, Session

    presets = Presets.over(None, registry.all("config"))
    files: dict[str, Path] = {}
    choice = _choice(group, name, presets, registry, files)
    with Session(presets, [], registry, files) as session:
        config, _ = session.compose(None, _words({group: choice}), [], Own({}, None))
        return session.resolve(config)[group]
