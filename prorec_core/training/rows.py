"""Tables with a row an item of which a step meets a few, and the AdamW that touches those rows alone.

Knows rows and gradients; knows nothing of what the rows stand for. AdamW moves every row in every step: one without a
gradient decays, and goes on by what its moments remember. Here a row's steps are made up for when it is next read, all
at once. A row last met at step s, with moments m and v, is at step t, all of it as `torch.optim.AdamW` would have it,

    w ← w · A(s, t) − W(s, t) · m / (√v + ε),   m ← β₁^(t−s) m,   v ← β₂^(t−s) v

with `A(s, t) = Π (1 − lr_k · λ)` over the steps k = s + 1 … t, λ the weight decay, and
`W(s, t) = Σ_k lr_k √(1 − β₂^k) / (1 − β₁^k) (β₁/√β₂)^(k−s) A(k, t)`. Both depend on s and t alone, so that a vector as
long as the epoch has steps serves all rows. What differs from AdamW is ε, which there does not shrink with √v, and
rounding. At the end of an epoch all rows are brought up to date. Axes: N rows, R rows met, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REMEMBERED = 256
"""Steps after which nothing is left of a momentum: (β₁/√β₂)^256 = 2e-12."""
_BLOCK = 65_536
"""Rows brought up to date at a time at the end of an epoch."""


class RowTable(nn.Module):
    """A free vector an item; where `by_rows`, a step reads some of them, once, and the rest stays untouched.

    Attributes:
        weight: all vectors, shape (N, D); a parameter, which gets a gradient only where it is read as a whole.
        by_rows: whether steps read rows.
        met: the items that this step has read, and their rows, which get the gradient; None: none yet.
    """

    def __init__(self, vectors_ND: Tensor, *, by_rows: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(vectors_ND)
        self.by_rows = by_rows
        self.met: tuple[Tensor, Tensor] | None = None
        self.before_reading: Callable[[Tensor], None] | None = None

    def forward(self, items_R: Tensor) -> Tensor:
        """The rows of some items, int64, each named once, as of now, shape (R, D).

        Raises:
            RuntimeError: the rows of this step have been read: the gradients of those would be lost.
        """
        if self.met is not None:
            raise RuntimeError("a table's rows are read once a step")
        if self.before_reading is not None:
            self.before_reading(items_R)
        # A leaf of its own: sparse gradients are not known on every device.
        rows_RD = F.embedding(items_R, self.weight.detach()).requires_grad_()
        self.met = items_R, rows_RD
        return rows_RD


class RowAdamW(torch.optim.AdamW):
    """AdamW over all parameters, which touches of the tables those rows alone that are read."""

    def __init__(self, groups: list[dict[str, Any]], tables: list[RowTable], *, fused: bool = True) -> None:
        super().__init__(groups, fused=fused, foreach=False)
        self._pending = [_Pending(self, table) for table in tables]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step: of the tables' rows those with a gradient, of all others the whole parameter."""
        loss = super().step(closure)
        for each in self._pending:
            each.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, and which rows were read."""
        super().zero_grad(set_to_none)
        for each in self._pending:
            each.table.met = None

    def settle(self) -> None:
        """Bring all rows up to date: from now on the tables may be read whole, and the state is AdamW's."""
        for each in self._pending:
            each.settle()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back a state that was taken when all rows were up to date."""
        super().load_state_dict(state_dict)
        for each in self._pending:
            each.forget()


class _Pending:
    """The steps of one table's rows that are still to be made."""

    def __init__(self, optimizer: RowAdamW, table: RowTable) -> None:
        self.table = table
        self._optimizer = optimizer
        table.before_reading = self._catch_up
        self.forget()

    def forget(self) -> None:
        """All rows are up to date."""
        weight = self.table.weight
        (self._group,) = (
            group for group in self._optimizer.param_groups if any(parameter is weight for parameter in group["params"])
        )
        self._now = 0
        """Steps since all rows were up to date."""
        self._last_N = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        # Of step s: W(s, t), as it was when the momentum was forgotten or is now; and log A(0, s).
        self._momentum, self._log_decay = (torch.zeros(1024, device=weight.device) for _ in range(2))
        self._decayed = 0.0

    def settle(self) -> None:
        if self._now:
            for rows in torch.arange(len(self._last_N), device=self._last_N.device).split(_BLOCK):
                self._catch_up(rows)
            self.forget()

    @torch.no_grad()
    def _catch_up(self, rows_R: Tensor) -> None:
        state = self._optimizer.state.get(self.table.weight)
        if not state or not self._now:
            return
        (beta_1, beta_2), now = self._group["betas"], self._now
        last_R = self._last_N[rows_R].long()
        forgotten_R = (last_R + _REMEMBERED).clamp(max=now)
        decayed = self._log_decay[now]
        missed_R1 = (now - last_R).float()[:, None]
        decay_R1 = (decayed - self._log_decay[last_R]).exp()[:, None]
        momentum_R1 = (self._momentum[last_R] * (decayed - self._log_decay[forgotten_R]).exp())[:, None]
        weight, first_RD, second_RD = self.table.weight, state["exp_avg"][rows_R], state["exp_avg_sq"][rows_R]
        weight[rows_R] = weight[rows_R] * decay_R1 - momentum_R1 * first_RD / (second_RD.sqrt() + self._group["eps"])
        state["exp_avg"][rows_R] = first_RD * beta_1**missed_R1
        state["exp_avg_sq"][rows_R] = second_RD * beta_2**missed_R1
        self._last_N[rows_R] = now

    def step(self) -> None:
        """The rows that were read, which are up to date, make this step; all others have it to make."""
        weight, (beta_1, beta_2), rate = self.table.weight, self._group["betas"], float(self._group["lr"])
        state = self._optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        self._now += 1
        state["step"] += 1
        step = int(state["step"])
        kept = 1 - min(rate * self._group["weight_decay"], 1 - 1e-6)
        # lr √(1 − β₂^k) / (1 − β₁^k), with which m / √v is a step.
        reach = rate * math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        if self.table.met is not None and self.table.met[1].grad is not None:
            rows_R, gradient_RD = self.table.met[0], self.table.met[1].grad
            self.table.met = None
            first_RD = state["exp_avg"][rows_R].lerp_(gradient_RD, 1 - beta_1)
            second_RD = state["exp_avg_sq"][rows_R].lerp_(gradient_RD.square(), 1 - beta_2)
            state["exp_avg"][rows_R], state["exp_avg_sq"][rows_R] = first_RD, second_RD
            moved_RD = first_RD / (second_RD.sqrt() + self._group["eps"] * math.sqrt(1 - beta_2**step))
            weight[rows_R] = weight[rows_R] * kept - reach * moved_RD
            self._last_N[rows_R] = self._now
        self._remember(kept, reach, beta_1 / math.sqrt(beta_2))

    def _remember(self, kept: float, reach: float, slowing: float) -> None:
        now = self._now
        if now == len(self._momentum):
            self._momentum, self._log_decay = (F.pad(each, (0, now)) for each in (self._momentum, self._log_decay))
        recent = self._momentum[max(0, now - _REMEMBERED) : now]
        ages = torch.arange(len(recent), 0, -1, device=recent.device, dtype=torch.float32)
        recent.mul_(kept).add_(reach * slowing**ages)
        self._decayed += math.log(kept)
        self._log_decay[now] = self._decayed
