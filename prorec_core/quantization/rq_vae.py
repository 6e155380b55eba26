"""RQ-VAE: an autoencoder whose latent vector is residually quantized, trained end to end.

Lee et al., "Autoregressive Image Generation using Residual Quantization" (2022), as TIGER uses it for items.
Knows embeddings and codes; knows nothing of items or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from prorec_core.config import QuantizeConfig
from prorec_core.progress import Progress, Report, silent
from prorec_core.quantization.blocks import LARGE_TABLE, all_cores, pieces
from prorec_core.quantization.kmeans import fitting_sample, level_seed
from prorec_core.quantization.quantizer import Codes, Floats, Quantizer, State
from prorec_core.quantization.residual_kmeans import ResidualKMeans

_CHUNK = 4096


@contextmanager
def _one_thread() -> Iterator[None]:
    """One PyTorch thread: the products are small, and the last bits then do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _by_pieces(work: Callable[[slice], npt.NDArray[Any]], rows: int) -> npt.NDArray[Any]:
    """What work makes of each piece of a table, joined; of a large one on all cores, each piece by one thread."""
    if rows <= LARGE_TABLE:
        with _one_thread():
            return np.concatenate([work(piece) for piece in pieces(rows, _CHUNK)] or [work(slice(0, 0))])
    with all_cores() as share, _one_thread():
        return np.concatenate(share(torch.no_grad()(work), rows, _CHUNK))


class _Network(nn.Module):
    """Encoder, codebooks and decoder."""

    def __init__(self, widths: list[int], codebooks: Iterable[Tensor] = ()) -> None:
        """`widths`: from the embedding's dimensions to the latent's; `codebooks`: one a level."""
        super().__init__()
        self.encoder = _perceptron(widths)
        self.decoder = _perceptron(widths[::-1])
        self.codebooks = nn.ParameterList(nn.Parameter(book) for book in codebooks)

    def codes(self, latent_NE: Tensor) -> Tensor:
        """Codes of latent vectors, nearest first, level by level; int64, shape (N, L)."""
        codes = []
        left = latent_NE.double()
        for codebook in self.codebooks:
            entries = codebook.double()
            distances = entries.square().sum(1) - 2 * left @ entries.T
            code = distances.argmin(dim=1)
            left = left - entries[code]
            codes.append(code)
        return torch.stack(codes, dim=1)

    def quantized(self, codes_Nl: Tensor) -> Tensor:
        """The latent vectors that codes, or their first levels, stand for, summed level by level: (l, N, E)."""
        chosen = [book[code] for book, code in zip(self.codebooks, codes_Nl.T, strict=False)]
        return torch.stack(chosen).cumsum(dim=0)


def _perceptron(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class RQVAE(Quantizer):
    """x ≈ decoder(Σ_l codebook_l[code_l]), codes found by nearness to what is left of encoder(x)."""

    def __init__(self, network: _Network, mean: Floats, scale: Floats) -> None:
        """`mean`, `scale`: of each dimension of the embeddings, by which the network's inputs are standardised."""
        self._network = network.eval()
        self._mean = mean
        self._scale = scale
        self.levels = len(network.codebooks)

    @classmethod
    def fit(
        cls, embeddings_ND: Floats, config: QuantizeConfig, seed: int, report: Report = silent
    ) -> tuple[Self, Codes]:
        fitted_to = fitting_sample(embeddings_ND, config.codes, level_seed(seed, 3))
        mean = fitted_to.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = fitted_to.std(axis=0, dtype=np.float64).astype(np.float32)
        scale = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, 1).astype(np.float32)
        inputs_ND = torch.from_numpy((fitted_to - mean) / scale)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(level_seed(seed, 0))
            network = _Network([inputs_ND.shape[1], *config.rq_vae.hidden, config.rq_vae.latent])
        with _one_thread():
            _start_codebooks(network, inputs_ND, config, seed)
            _train(network, inputs_ND, config, seed, report)
        fitted = cls(network, mean, scale)
        return fitted, fitted.encode(embeddings_ND)

    def encode(self, embeddings_ND: Floats) -> Codes:
        def codes_of(piece: slice) -> Codes:
            inputs = torch.from_numpy((embeddings_ND[piece] - self._mean) / self._scale)
            codes: Codes = self._network.codes(self._network.encoder(inputs)).numpy().astype(np.uint16)
            return codes

        return _by_pieces(codes_of, len(embeddings_ND))

    def decode(self, codes_Nl: Codes) -> Floats:
        sizes = torch.tensor([len(book) for book in self._network.codebooks][: codes_Nl.shape[1]])

        def decoded(piece: slice) -> Floats:
            codes = torch.from_numpy(codes_Nl[piece].astype(np.int64)).minimum(sizes - 1)
            vectors: Floats = self._network.decoder(self._network.quantized(codes)[-1]).numpy()
            return vectors * self._scale + self._mean

        return _by_pieces(decoded, len(codes_Nl))

    def state(self) -> State:
        state: State = {name: value.numpy() for name, value in self._network.state_dict().items()}
        return {**state, "mean": self._mean, "scale": self._scale}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        weights = {
            name: torch.from_numpy(np.array(value)) for name, value in state.items() if name not in ("mean", "scale")
        }
        layers = sorted(
            int(name.split(".")[1]) for name in weights if name.startswith("encoder.") and name.endswith("weight")
        )
        widths = [weights[f"encoder.{layers[0]}.weight"].shape[1]]
        widths += [weights[f"encoder.{layer}.weight"].shape[0] for layer in layers]
        levels = sum(name.startswith("codebooks.") for name in weights)
        network = _Network(widths, [weights[f"codebooks.{level}"] for level in range(levels)])
        network.load_state_dict(weights)
        return cls(network, state["mean"], state["scale"])


@torch.no_grad()
def _start_codebooks(network: _Network, inputs_ND: Tensor, config: QuantizeConfig, seed: int) -> None:
    """Residual k-means of the untrained encoder's outputs."""
    latent_NE = torch.cat([network.encoder(inputs_ND[piece]) for piece in pieces(len(inputs_ND))]).numpy()
    start = config.model_copy(update={"iterations": min(config.iterations, 10)})
    fitted, _ = ResidualKMeans.fit(latent_NE, start, level_seed(seed, 1))
    network.codebooks.extend([nn.Parameter(torch.from_numpy(book.copy())) for book in fitted.codebooks])


def _train(network: _Network, inputs_ND: Tensor, config: QuantizeConfig, seed: int, report: Report) -> None:
    options = config.rq_vae
    shuffle = torch.Generator().manual_seed(level_seed(seed, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=0.0)
    network.train()
    for epoch in range(options.epochs):
        used = [torch.zeros(len(book), dtype=torch.int64) for book in network.codebooks]
        loss_sum = error_sum = 0.0
        order = torch.randperm(len(inputs_ND), generator=shuffle)
        for batch in order.tensor_split(-(-len(order) // options.batch_size)):
            inputs = inputs_ND[batch]
            latent = network.encoder(inputs)
            with torch.no_grad():
                codes = network.codes(latent)
            sums_lNE = network.quantized(codes)
            # What each level is asked to quantize: the latent without the levels before.
            before_lNE = torch.cat([torch.zeros_like(sums_lNE[:1]), sums_lNE[:-1]]).detach()
            left_lNE = latent - before_lNE
            chosen_lNE = torch.stack([book[code] for book, code in zip(network.codebooks, codes.T, strict=True)])
            vector_loss = functional.mse_loss(chosen_lNE, left_lNE.detach())
            commitment = functional.mse_loss(left_lNE, chosen_lNE.detach())
            straight_through = latent + (sums_lNE[-1] - latent).detach()
            error_B = (network.decoder(straight_through) - inputs).square().mean(dim=1)
            loss = error_B.mean() + config.levels * (vector_loss + options.commitment * commitment)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for level, chosen in enumerate(codes.T):
                used[level] += torch.bincount(chosen, minlength=len(used[level]))
            loss_sum += float(loss.detach()) * len(batch)
            error_sum += float(error_B.detach().sum())
        if epoch + 1 < options.epochs:
            _revive(network, optimizer, used, left_lNE.detach(), error_B.detach())
        metrics = {
            "loss": loss_sum / len(inputs_ND),
            "relative_error": error_sum / len(inputs_ND),
            "used_share": float(torch.cat(used).gt(0).float().mean()),
        }
        report(Progress(epoch + 1, options.epochs, "epoch", metrics))
    network.eval()


@torch.no_grad()
def _revive(
    network: _Network, optimizer: torch.optim.Optimizer, used: list[Tensor], left_lNE: Tensor, error_N: Tensor
) -> None:
    """Move codes that no item had in the epoch to where the worst reconstructed items of a batch are."""
    worst = error_N.argsort(descending=True, stable=True)
    for book, count, left in zip(network.codebooks, used, left_lNE, strict=True):
        dead = (count == 0).nonzero().squeeze(1)[: len(worst)]
        book[dead] = left[worst[: len(dead)]]
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[book][moment][dead] = 0
