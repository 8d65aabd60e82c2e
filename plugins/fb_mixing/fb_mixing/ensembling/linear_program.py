"""Small linear programs over the simplex."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-9


def maximise(objective: Tensor, rows: Tensor, bounds: Tensor) -> Tensor | None:
    r"""Solve $\max_\alpha c^\top \alpha$ for $A \alpha \ge b$, $\alpha \ge 0$, $\sum_i \alpha_i = 1$.

    Dantzig's simplex method in two phases on a dense tableau, with Bland's rule, under which it ends.

    Args:
        objective: `(n,)` float64, c.
        rows: `(m, n)` float64, A; of the order of 1.
        bounds: `(m,)` float64, b.

    Returns:
        A best $\alpha$, `(n,)`; None if there is none that fits.
    """
    m, n = rows.shape
    equations = torch.cat([rows, -torch.eye(m, dtype=rows.dtype), bounds[:, None]], dim=1)
    simplex = torch.cat([torch.ones(n), torch.zeros(m), torch.ones(1)]).to(rows.dtype)
    equations = torch.cat([equations, simplex[None]])
    equations = torch.where(equations[:, -1:] < 0, -equations, equations)
    # One artificial variable an equation makes a start; the first phase drives them out.
    table = torch.cat([equations[:, :-1], torch.eye(m + 1, dtype=rows.dtype), equations[:, -1:]], dim=1)
    basis = list(range(n + m, n + m + m + 1))
    artificial = torch.zeros(table.shape[1] - 1, dtype=rows.dtype)
    artificial[n + m :] = -1
    _improve(table, basis, artificial, table.shape[1] - 1)
    if any(number >= n + m and table[row, -1] > _TINY for row, number in enumerate(basis)):
        return None
    _drop_artificial(table, basis, n + m)
    whole = torch.zeros_like(artificial)
    whole[:n] = objective
    _improve(table, basis, whole, n + m)
    found = torch.zeros(n + m + m + 1, dtype=rows.dtype)
    found[basis] = table[:, -1]
    return found[:n]


def _improve(table: Tensor, basis: list[int], objective: Tensor, columns: int) -> None:
    """Pivot, in place, until none of the first `columns` variables can raise the objective."""
    # Rounding can defeat Bland's rule; what is reached after so many pivots fits all the same.
    for _ in range(100 * len(basis)):
        reduced = objective[:columns] - objective[basis] @ table[:, :columns]
        entering = (reduced > _TINY).nonzero()
        if not len(entering):
            return
        column = int(entering[0])
        ratios = [
            (float(table[row, -1] / table[row, column]), basis[row], row)
            for row in range(len(basis))
            if table[row, column] > _TINY
        ]
        _pivot(table, basis, min(ratios)[2], column)


def _drop_artificial(table: Tensor, basis: list[int], columns: int) -> None:
    """Exchange artificial variables that are left, at zero, for others of the first `columns`."""
    for row, number in enumerate(basis):
        if number >= columns:
            column = int(table[row, :columns].abs().argmax())
            if table[row, column].abs() > _TINY:
                _pivot(table, basis, row, column)


def _pivot(table: Tensor, basis: list[int], row: int, column: int) -> None:
    table[row] /= table[row, column].clone()
    others = torch.arange(len(basis)) != row
    table[others] -= table[others, column, None] * table[row]
    basis[row] = column
