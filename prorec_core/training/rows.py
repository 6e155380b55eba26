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

from prorec_core.training.sampling import padded_unique

_REMEMBERED = 256
"""Steps after which nothing is left of a momentum: (β₁/√β₂)^256 = 2e-12."""
_BLOCK = 65_536
"""Rows brought up to date at a time at the end of an epoch."""


class RowTable(nn.Module):
    """A free vector an item; where `by_rows`, a step reads some of them, once, and the rest stays untouched.

    Attributes:
        weight: all vectors, shape (N, D); a parameter, which gets a gradient only where it is read as a whole.
        by_rows: whether steps read rows.
        met: the items that this step has read, their rows, which get the gradient, and how many of them are different
            ones, after which the last comes again (int64, shape (1,); None: all are); None: none yet.
    """

    def __init__(self, vectors_ND: Tensor, *, by_rows: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(vectors_ND)
        self.by_rows = by_rows
        self.met: tuple[Tensor, Tensor, Tensor | None] | None = None
        self.before_reading: Callable[[Tensor], None] | None = None

    def forward(self, items_R: Tensor, *, repeated: bool = False) -> Tensor:
        """The rows of some items, int64, as of now, shape (R, D).

        Args:
            items_R: each named once,
            repeated: or some of them more often; then no shape depends on which.

        Raises:
            RuntimeError: the rows of this step have been read: the gradients of those would be lost.
        """
        if self.met is not None:
            raise RuntimeError("a table's rows are read once a step")
        places_R, count = None, None
        if repeated:
            items_R, places_R, count = padded_unique(items_R)
        if self.before_reading is not None:
            self.before_reading(items_R)
        # A leaf of its own: sparse gradients are not known on every device.
        rows_RD = F.embedding(items_R, self.weight.detach()).requires_grad_()
        self.met = items_R, rows_RD, count
        return rows_RD if places_R is None else F.embedding(places_R, rows_RD)


class RowAdamW(torch.optim.AdamW):
    """AdamW over all parameters, which touches of the tables those rows alone that are read.

    What a step is made with is a few numbers, which the host knows beforehand and puts where the device reads them, so
    that a step that was captured can be run again: `prepare`, before each. Who does not capture need not call it.
    """

    def __init__(
        self, groups: list[dict[str, Any]], tables: list[RowTable], *, fused: bool = True, capturable: bool = False
    ) -> None:
        super().__init__(groups, fused=fused, foreach=False, capturable=capturable)
        self._pending = [_Pending(self, table) for table in tables]

    def prepare(self) -> None:
        """Let the numbers of the step that begins be known, its rates among them."""
        for each in self._pending:
            each.prepare()

    def reserve(self, steps: int) -> bool:
        """Make room for so many steps till all rows are brought up to date; whether what is there had to move."""
        moved = [each.reserve(steps) for each in self._pending]
        return any(moved)

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
    """The steps of one table's rows that are still to be made.

    `_now`, `_decayed` and `_made` are the host's; `_numbers` and `_counts` are what the device reads of them.
    """

    def __init__(self, optimizer: RowAdamW, table: RowTable) -> None:
        self.table = table
        self._optimizer = optimizer
        table.before_reading = self._catch_up
        device = table.weight.device
        self._last_N = torch.zeros(len(table.weight), dtype=torch.int32, device=device)
        # Of step s, from place _REMEMBERED on: W(s, t), as it was when the momentum was forgotten or is now; and
        # log A(0, s).
        self._momentum, self._log_decay = (torch.zeros(1024, device=device) for _ in range(2))
        self._numbers = torch.zeros(5, device=device)
        """log A(0, s) before the step and after it, what the step keeps of a weight, its reach, its ε."""
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        """Steps before it and with it."""
        self._ages = torch.arange(_REMEMBERED, 0, -1, device=device, dtype=torch.float32)
        self._window = torch.arange(_REMEMBERED, device=device)
        self.forget()

    @property
    def _group(self) -> dict[str, Any]:
        groups, weight = self._optimizer.param_groups, self.table.weight
        return next(group for group in groups if any(parameter is weight for parameter in group["params"]))

    def forget(self) -> None:
        """All rows are up to date."""
        self._now = 0
        """Steps since all rows were up to date."""
        self._decayed = 0.0
        self._ready = False
        state = self._optimizer.state.get(self.table.weight)
        self._made = int(state["step"]) if state else 0
        """Steps in all."""
        # In place: a captured step reads these.
        for each in (self._last_N, self._momentum, self._log_decay):
            each.zero_()

    def reserve(self, steps: int) -> bool:
        wanted, there = steps + 1 + _REMEMBERED, len(self._momentum)
        if wanted <= there:
            return False
        room = (0, 2 * wanted - there)
        self._momentum, self._log_decay = F.pad(self._momentum, room), F.pad(self._log_decay, room)
        return True

    def settle(self) -> None:
        # What was told last is of before a step that may have been replayed.
        self._ready = False
        if self._now:
            for rows in torch.arange(len(self._last_N), device=self._last_N.device).split(_BLOCK):
                self._catch_up(rows)
            self._optimizer.state[self.table.weight]["step"] = torch.tensor(float(self._made))
            self.forget()

    def prepare(self) -> None:
        """Tell the device what the next step is made with; for the host it is made from then on."""
        group, before, now = self._group, self._decayed, self._now
        beta_1, beta_2 = group["betas"]
        # Where a step can be captured its rate is the device's too, and the host does not ask for it back.
        rate = float(group.get("rate", group["lr"]))
        self._now, self._made = now + 1, self._made + 1
        self.reserve(self._now)
        kept = 1 - min(rate * group["weight_decay"], 1 - 1e-6)
        self._decayed += math.log(kept)
        corrected = math.sqrt(1 - beta_2**self._made)
        # lr √(1 − β₂^k) / (1 − β₁^k), with which m / √v is a step.
        reach = rate * corrected / (1 - beta_1**self._made)
        self._tell((before, self._decayed, kept, reach, group["eps"] * corrected), (now, self._now))
        self._ready = True

    def _tell(self, numbers: tuple[float, ...], counts: tuple[int, ...]) -> None:
        self._numbers[: len(numbers)].copy_(torch.tensor(numbers), non_blocking=True)
        self._counts[: len(counts)].copy_(torch.tensor(counts), non_blocking=True)

    @torch.no_grad()
    def _catch_up(self, rows_R: Tensor) -> None:
        """Make up for the steps of some rows till now; the last of them may come again."""
        state = self._optimizer.state.get(self.table.weight)
        if not state:
            return
        if not self._ready:
            self._tell((self._decayed,), (self._now,))
        beta_1, beta_2 = self._group["betas"]
        decayed, now = self._numbers[0], self._counts[0]
        last_R = self._last_N[rows_R].long()
        forgotten_R = (last_R + _REMEMBERED).minimum(now)
        missed_R1 = (now - last_R).float()[:, None]
        decay_R1 = (decayed - self._log_decay[last_R]).exp()[:, None]
        momentum_R = self._momentum[last_R + _REMEMBERED]
        momentum_R1 = (momentum_R * (decayed - self._log_decay[forgotten_R]).exp())[:, None]
        weight, first_RD, second_RD = self.table.weight, state["exp_avg"][rows_R], state["exp_avg_sq"][rows_R]
        weight[rows_R] = weight[rows_R] * decay_R1 - momentum_R1 * first_RD / (second_RD.sqrt() + self._group["eps"])
        state["exp_avg"][rows_R] = first_RD * beta_1**missed_R1
        state["exp_avg_sq"][rows_R] = second_RD * beta_2**missed_R1
        self._last_N[rows_R] = now.int()

    def step(self) -> None:
        """The rows that were read, which are up to date, make this step; all others have it to make."""
        if not self._ready:
            self.prepare()
        self._ready = False
        weight, (beta_1, beta_2) = self.table.weight, self._group["betas"]
        state = self._optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        _, decayed, kept, reach, small = self._numbers.unbind()
        now = self._counts[1]
        if self.table.met is not None and self.table.met[1].grad is not None:
            rows_R, gradient_RD, count = self.table.met[0], self.table.met[1].grad, self.table.met[2]
            self.table.met = None
            if count is not None:
                # What stands there again makes the same step again, so that it does not matter which is kept.
                gradient_RD = gradient_RD[torch.arange(len(rows_R), device=rows_R.device).minimum(count - 1)]
            first_RD = state["exp_avg"][rows_R].lerp_(gradient_RD, 1 - beta_1)
            second_RD = state["exp_avg_sq"][rows_R].lerp_(gradient_RD.square(), 1 - beta_2)
            state["exp_avg"][rows_R], state["exp_avg_sq"][rows_R] = first_RD, second_RD
            weight[rows_R] = weight[rows_R] * kept - reach * (first_RD / (second_RD.sqrt() + small))
            self._last_N[rows_R] = now.int()
        # The latest _REMEMBERED steps, this one too; before the first stand zeros, which nobody reads.
        recent = now + self._window
        slowing = beta_1 / math.sqrt(beta_2)
        self._momentum[recent] = self._momentum[recent] * kept + reach * slowing**self._ages
        self._log_decay[now[None]] = decayed
