"""Algebraic laws and reference formulas."""

from __future__ import annotations

from fusionbench_core.records import Law
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.subject import MethodSubject
from fusionbench_core.testing.tolerance import assert_close

_DTYPES = ("float32", "bfloat16")


@check("FM-213")
def identical_inputs(subject: MethodSubject) -> str | None:
    """Copies of one model give that model, where the law IDENTICAL is declared.

    Frozen layers and untouched embeddings are copies: a method that changes them breaks models quietly.

    Fix: look at how weights add up (to 1), or take IDENTICAL out of the declared laws.
    """
    import torch

    def probe(dtype: str) -> None:
        case = subject.case("mlp", dtype=getattr(torch, dtype))
        first = next(iter(case.models.values()))
        copies = type(case)(case.name, case.base, dict.fromkeys(case.models, first), case.tasks)
        models, base = copies.states()
        assert_close(
            subject.fuse(copies),
            next(iter(models.values())),
            [base, *models.values()],
            f"copies of one {dtype} model do not give that model",
        )

    return _law(subject, Law.IDENTICAL, probe)


def _law(subject: MethodSubject, law: Law, probe) -> str | None:
    """Probe a law: must hold where declared, is suggested where it holds and is not declared."""
    subject.needs_weights()
    declared = law in subject.capabilities.laws
    try:
        for dtype in _DTYPES:
            probe(dtype)
    except Violation as fault:
        if not declared:
            raise Inapplicable(f"the law {law.name} is not declared, and does not hold") from None
        fault.false_declaration = True
        raise
    return None if declared else f"the law {law.name} holds on all probes: you may declare it"
