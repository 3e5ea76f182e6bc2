"""Candidates of the neighbour search from torch's matrix products, on a GPU; error bounds are those of `bounds`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from diffalign.alignment.search.bounds import Found, Precision, Search, Searched, Settle, column_step, group_shape
from diffalign.alignment.search.kernels import settle_listed


def torch_search(side: Searched, k: int, budget: int, device: torch.device) -> Search:
    """A search with torch's matrix products.

    side: copied to the device. budget: bytes for blocks there. Raises ValueError where torch may use less than float32
    in products (TF32), for which the error bound does not hold.
    """
    allowed = torch.get_float32_matmul_precision()
    if allowed != "highest":
        raise ValueError(f"exact neighbours need torch's float32 matmul precision at 'highest', not at '{allowed}'")
    there = torch.from_numpy(side.multiplied).to(device)
    halves = None if side.halves is None else torch.from_numpy(side.halves).to(device)
    count, width = side.rows.shape
    depth, groups = group_shape(count, k)

    @torch.inference_mode()
    def search(block: NDArray[np.intp], precision: Precision, most: int) -> Settle:
        queries = torch.from_numpy(block).to(device)
        if precision is np.float32:
            products = there[queries] @ there.T
        else:
            left = there[queries].double()
            products = torch.empty((len(block), count), dtype=torch.float64, device=device)
            step = column_step(width, budget)
            for start in range(0, count, step):
                products[:, start : start + step] = left @ there[start : start + step].double().T
        if halves is not None:
            products -= halves.to(products.dtype)
        products[torch.arange(len(block), device=device), queries] = -torch.inf
        maxima = products[:, : depth * groups].view(len(block), depth, groups).amax(dim=1)
        lowest = (maxima.topk(k, dim=1).values[:, -1].double() - side.slack(precision)).to(products.dtype)
        cut = torch.nextafter(lowest, torch.full_like(lowest, -torch.inf))
        mask = products >= cut[:, None]
        counts = mask.sum(dim=1)
        crowded = counts > most
        # their candidates may be all rows, so they are not listed
        mask[crowded] = False
        columns = mask.nonzero()[:, 1].to(torch.int32).cpu().numpy()
        ends = np.concatenate([[0], counts.masked_fill(crowded, 0).cumsum(0).cpu().numpy()])
        too_many = crowded.cpu().numpy()

        def settle(part: slice, found: Found, most_further: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
            asked = block[part]
            starts = ends[part.start : part.start + len(asked) + 1]
            written = found.indices, found.similarities, found.tied, found.further
            rest = settle_listed(side.rows, asked, starts, columns, most_further, side.unit, *written)
            return too_many[part], rest

        return settle

    return search
