from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from prorec_core.training.rows import RowAdamW, RowTable

N, D = 40, 3


def _steps(count: int, seed: int = 0) -> list[tuple[float, Tensor, Tensor]]:
    """Rate, rows and gradient of each step; some rows are met once, early, and never again."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for step in range(count):
        places = torch.randperm(N // 2 if step > 4 else N - 2, generator=generator)[:5]
        found.append((0.02 / (1 + step % 7), places, torch.randn(5, D, generator=generator)))
    return found


def _table() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(5))


def _optimizer(table: RowTable) -> RowAdamW:
    return RowAdamW([{"params": [table.weight], "lr": 1.0, "weight_decay": 0.3}], [table])


def _run(table: RowTable, optimizer: RowAdamW, steps: list[tuple[float, Tensor, Tensor]]) -> None:
    for rate, rows, gradient in steps:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        (table(rows) * gradient).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("count", [1, 7, 300, 1100])
def test_rows_are_where_adamw_over_the_whole_table_would_have_them(count: int) -> None:
    whole, table = nn.Parameter(_table()), RowTable(_table(), by_rows=True)
    dense, ours = torch.optim.AdamW([whole], lr=1.0, weight_decay=0.3), _optimizer(table)
    for rate, rows, gradient in _steps(count):
        dense.param_groups[0]["lr"] = rate
        whole.grad = torch.zeros(N, D).index_put((rows,), gradient)
        before = whole[rows].clone()
        dense.step()
        torch.testing.assert_close(table(rows).detach(), before, rtol=2e-4, atol=2e-5)
        _run(table, ours, [(rate, rows, gradient)])
    ours.settle()
    torch.testing.assert_close(table.weight, whole, rtol=2e-4, atol=2e-5)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(ours.state[table.weight][name], dense.state[whole][name], rtol=1e-3, atol=1e-7)


def test_rows_that_are_not_met_are_not_touched() -> None:
    table = RowTable(_table(), by_rows=True)
    optimizer, before = _optimizer(table), _table()
    _run(table, optimizer, _steps(30))
    met = torch.cat([rows for _, rows, _ in _steps(30)]).unique()
    untouched = torch.ones(N, dtype=torch.bool).index_fill(0, met, False)
    assert torch.equal(table.weight[untouched], before[untouched])
    assert not optimizer.state[table.weight]["exp_avg"][untouched].any()
    assert (table.weight != before)[met].all()


def test_rows_are_read_once_a_step() -> None:
    table = RowTable(_table(), by_rows=True)
    optimizer = _optimizer(table)
    table(torch.tensor([1]))
    with pytest.raises(RuntimeError, match="once a step"):
        table(torch.tensor([2]))
    optimizer.zero_grad()
    table(torch.tensor([2]))


def test_a_state_put_back_goes_on_bit_for_bit() -> None:
    table, again = RowTable(_table(), by_rows=True), RowTable(_table(), by_rows=True)
    optimizer, other = _optimizer(table), _optimizer(again)
    _run(table, optimizer, _steps(40))
    optimizer.settle()
    again.load_state_dict(table.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for tables, each in ((table, optimizer), (again, other)):
        _run(tables, each, _steps(40, seed=1))
        each.settle()
    assert torch.equal(table.weight, again.weight)
