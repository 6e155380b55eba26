"""What a sampled softmax gets wrong, against the whole one: `python -m benchmarks.sampling`.

Knows vectors that lie in clusters, as those of items do; needs no data. Of the same batch and many samples it tells the
mean of the estimated normaliser over the exact one and its spread, how far the mean loss is from the exact one, and the
length of the gradient's bias and of its spread, both over the length of the exact gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prorec_core.training.sampling import met_cross_entropy, met_items

ITEMS, CLUSTERS, DIM, POSITIONS, DRAWS = 200_000, 500, 64, 512, 200
SCALE = 1 / 0.06
SAMPLES = (512, 2048, 8192, 32_768)


def problem(items: int = ITEMS, positions: int = POSITIONS) -> tuple[Tensor, Tensor, Tensor]:
    """States, item vectors and targets: a state lies between its target and the cluster of the target."""
    torch.manual_seed(0)
    centres = torch.randn(CLUSTERS, DIM)[torch.randint(CLUSTERS, (items,))]
    table_ND = F.normalize(centres + 0.8 * torch.randn(items, DIM), dim=-1)
    # A few items have most of the targets.
    targets_P = (items * torch.rand(positions) ** 3).long()
    states_PD = F.normalize(centres[targets_P] + table_ND[targets_P] + 6 * torch.randn(positions, DIM) / 8, dim=-1)
    return states_PD, table_ND, targets_P


def measured(states_PD: Tensor, table_ND: Tensor, targets_P: Tensor, sample: int, draws: int) -> dict[str, float]:
    """The figures of one size of the sample."""
    states_PD = states_PD.clone().requires_grad_()
    logits_PN = states_PD @ table_ND.t() * SCALE
    exact = F.cross_entropy(logits_PN, targets_P)
    (wanted_PD,) = torch.autograd.grad(exact, states_PD)
    normaliser_P = logits_PN.detach().logsumexp(1)
    ratios, losses, total_PD, squares = [], [], torch.zeros_like(wanted_PD), 0.0
    for _ in range(draws):
        met = met_items(targets_P, len(table_ND), sample)
        rows_RD = table_ND[met.items_R]
        loss = met_cross_entropy(states_PD, rows_RD, met.rows_of(targets_P), SCALE, met)
        (gradient_PD,) = torch.autograd.grad(loss, states_PD)
        with torch.no_grad():
            sums_P = (states_PD @ rows_RD.t() * SCALE + met.log_weights_R).logsumexp(1)
        ratios.append((sums_P - normaliser_P).exp())
        losses.append(float(loss.detach() - exact.detach()))
        total_PD += gradient_PD
        squares += float(gradient_PD.square().sum())
    mean_PD, length = total_PD / draws, float(wanted_PD.square().sum())
    variance = max(squares / draws - float(mean_PD.square().sum()), 0.0) * draws / (draws - 1)
    # The mean of so many draws is off by chance too, which is taken off.
    bias = max(float((mean_PD - wanted_PD).square().sum()) - variance / draws, 0.0)
    ratio = torch.stack(ratios)
    return {
        "normaliser": float(ratio.mean()),
        "normaliser_spread": float(ratio.std(0).mean()),
        "loss": sum(losses) / draws,
        "bias": (bias / length) ** 0.5,
        "spread": (variance / length) ** 0.5,
    }


def main() -> None:
    """Print a table, a row a size of the sample."""
    states_PD, table_ND, targets_P = problem()
    print("| sampled items | normaliser / exact | its spread | loss − exact | gradient's bias | its spread |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for sample in SAMPLES:
        found = measured(states_PD, table_ND, targets_P, sample, DRAWS)
        print(
            f"| {sample:,} | {found['normaliser']:.3f} | {found['normaliser_spread']:.3f} | {found['loss']:+.4f} "
            f"| {found['bias']:.3f} | {found['spread']:.3f} |"
        )


if __name__ == "__main__":
    main()
