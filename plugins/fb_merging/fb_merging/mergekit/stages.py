"""Several documents: which is made of which."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from fb_merging.mergekit.document import Block, Document, Source
from fb_merging.mergekit.reference import STAGE, Model
from fusionbench_core import ConfigError


def linked(documents: Sequence[Document]) -> tuple[dict[str, Document], Document]:
    """Named documents whose results are used, each after those that it needs, and the one that is asked for.

    That is the document without a name, else the last one that no other needs.

    Raises:
        ConfigError: if a name is given twice, or documents need each other.
    """
    if len(documents) == 1:
        return {}, documents[0]
    named: dict[str, Document] = {}
    for document in documents:
        for name in _names(document):
            if name in named:
                raise ConfigError(
                    f"two documents are called {name!r}", config="name", fix="rename one of them"
                )
            named[name] = document
    needs = {id(each): [named[n] for n in _used(each, named) if named[n] is not each] for each in documents}
    unnamed = [document for document in documents if not document.name]
    used = {id(document) for each in needs.values() for document in each}
    free = [document for document in documents if id(document) not in used]
    if not free:
        raise ConfigError("the documents need each other in a circle", why=f"they are {', '.join(named)}")
    last = next((document for document in reversed(unnamed) if id(document) not in used), free[-1])
    order: list[Document] = []
    for document in documents:
        _visit(document, needs, order, [])
    titles = {id(document): _title(document, number) for number, document in enumerate(documents)}
    stages = {name: f"{STAGE}{titles[id(document)]}" for name, document in named.items()}
    renamed = {id(document): _with_stages(document, stages) for document in documents}
    return (
        {titles[id(document)]: renamed[id(document)] for document in order if document is not last},
        renamed[id(last)],
    )


def _names(document: Document) -> list[str]:
    return list(dict.fromkeys(name for name in (document.name, document.out_path) if name))


def _title(document: Document, number: int) -> str:
    return document.name or Model(document.out_path or f"stage_{number + 1}").label


def _used(document: Document, named: Mapping[str, Document]) -> list[str]:
    return [model.path for model in document.models if model.path in named]


def _visit(
    document: Document, needs: Mapping[int, list[Document]], order: list[Document], above: list[Document]
) -> None:
    if any(document is each for each in order):
        return
    if any(document is each for each in above):
        circle = " -> ".join(_title(each, 0) for each in [*above, document])
        raise ConfigError("the documents need each other in a circle", why=circle)
    for other in needs[id(document)]:
        _visit(other, needs, order, [*above, document])
    order.append(document)


def _with_stages(document: Document, stages: Mapping[str, str]) -> Document:
    def renamed(model: Model | None) -> Model | None:
        return model and dataclasses.replace(model, path=stages.get(model.path, model.path))

    def source(each: Source) -> Source:
        return dataclasses.replace(each, model=renamed(each.model) or each.model)

    def block(each: Block) -> Block:
        return dataclasses.replace(each, sources=tuple(map(source, each.sources)), base=renamed(each.base))

    return dataclasses.replace(
        document, blocks=tuple(map(block, document.blocks)), base=renamed(document.base)
    )
