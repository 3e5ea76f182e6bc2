"""All that is measured of latents and images at a step: energies of bands and wavelets, the slope, and features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.dynamics.features import FEATURES, features
from diffalign.dynamics.spectra import (
    BANDS,
    SMALLEST_SIDE_OF_SLOPES,
    Bands,
    band_energies,
    most_levels,
    rapsd,
    slope,
    wavelet_energies,
)

Array = NDArray[np.float64]

SLOPE = "slope"
_BAND, _WAVELET = "energy_", "wavelet_"
ENERGIES = tuple(f"{_BAND}{band}" for band in BANDS)


@dataclass(frozen=True)
class Measuring:
    """How frequencies are measured. window: of spectra and slopes; band energies have none, so that they add up to the
    energy of the image itself. wavelet_levels: of images; of latents, which are smaller, as many of them as divide.
    """

    bands: Bands
    window: str
    wavelet: str
    wavelet_levels: int

    @classmethod
    def from_parameters(cls, given: Mapping[str, Any]) -> Measuring:
        """Of the parameter of a rule: ``bands`` (low, mid), ``window``, ``wavelet``, ``wavelet_levels``."""
        return cls(Bands(**given["bands"]), given["window"], given["wavelet"], given["wavelet_levels"])


@dataclass(frozen=True, eq=False)
class Measured:
    """Measures by name, each (N,) float64, and the power (N, K) at frequencies (K,) in cycles per pixel."""

    values: Mapping[str, Array]
    frequencies: Array
    power: Array


def kind(measure: str) -> str:
    """What a measure is of: ``band``, ``wavelet``, ``slope``, or the kind of a feature. Raises KeyError for others."""
    if measure in ENERGIES:
        return "band"
    if measure.startswith(_WAVELET):
        return "wavelet"
    return SLOPE if measure == SLOPE else FEATURES[measure].kind


def of_latents(latents: NDArray[np.floating], measuring: Measuring) -> Measured:
    """Frequencies of latents (N, C, H, W): `ENERGIES`, ``wavelet_0`` (the approximation) … from coarse to fine, and
    ``slope``. Latents with an odd side have no wavelets, and those with a side below 8 no slope.
    """
    return _frequencies(latents, measuring, min(measuring.wavelet_levels, most_levels(*latents.shape[2:])))


def of_images(images: NDArray[np.float32], final: NDArray[np.float32], measuring: Measuring) -> Measured:
    """Frequencies, and features beside the final image or images, of images (N, H, W, 3) in [0, 1].

    Raises ValueError where 2^levels of wavelets does not divide the sides, and as `features`.
    """
    seen = features(images, final, measuring.bands)
    found = frequencies_of_images(images, measuring)
    return Measured({**found.values, **seen}, found.frequencies, found.power)


def frequencies_of_images(images: NDArray[np.float32], measuring: Measuring) -> Measured:
    """Frequencies alone of images (N, H, W, 3). Raises ValueError where 2^levels does not divide the sides."""
    return _frequencies(planes(images), measuring, measuring.wavelet_levels)


def planes(images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Images (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def _frequencies(values: NDArray[np.floating], measuring: Measuring, levels: int) -> Measured:
    energies = band_energies(values, measuring.bands, "none")
    frequencies, power = rapsd(values, measuring.window)
    found = dict(zip(ENERGIES, energies.T, strict=True))
    if levels:
        of_wavelets = wavelet_energies(values, measuring.wavelet, levels)
        found |= {f"{_WAVELET}{level}": energy for level, energy in enumerate(of_wavelets.T)}
    if min(values.shape[2:]) >= SMALLEST_SIDE_OF_SLOPES:
        found[SLOPE], _ = slope(frequencies, power)
    return Measured(found, frequencies, power)
