"""Which subjects and which checks somebody asked for by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusionbench_core.errors import ConfigError, UnknownName
from fusionbench_core.suggest import did_you_mean, fold
from fusionbench_core.testing.check import Level, catalogue
from fusionbench_core.testing.subject import Subject


def chosen_subjects(subjects: Sequence[Subject], wanted: Iterable[str]) -> list[Subject]:
    """The subjects of these names, in their own order; all of them if no name is given.

    A full name, or the plugin's namespace, comes before a short name. Case counts for nothing, and dashes
    are as good as underscores.

    Raises:
        UnknownName: if nothing has such a name.
    """
    full = {subject.name: subject.name for subject in subjects}
    short = {subject.name.rpartition("/")[2]: subject.name for subject in subjects}
    folded = {fold(key): name for key, name in [*short.items(), *full.items()]}
    names = set()
    for each in wanted:
        name = folded.get(fold(each))
        if name is None:
            known = full if "/" in each else short
            raise UnknownName(
                f"{subjects[0].name} declares no {each!r} that can be checked",
                fix=did_you_mean(each, known) or "leave out `--subject` to check all that it declares",
            )
        names.add(name)
    return [subject for subject in subjects if subject.name in names] if names else list(subjects)


def chosen_checks(wanted: Iterable[str], level: Level) -> list[str]:
    """IDs of checks as they are written in the catalogue.

    Raises:
        ConfigError: if there is no such check, or it does not run at this level.
    """
    ids = [each.upper() for each in wanted]
    levels = {check.id: check.level for check in catalogue()} if ids else {}
    for each in ids:
        if each not in levels:
            raise UnknownName(
                f"there is no check {each!r}",
                fix=did_you_mean(each, levels) or "docs/reference/conformance.md lists them",
            )
        if level == "fast" and levels[each] == "full":
            raise ConfigError(f"{each} runs at the full level only", fix="add `--level full`")
    return ids
