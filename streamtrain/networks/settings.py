"""The section `network` of a configuration: which network, how large, with which head.

Each kind of network is a section of its own, chosen by its setting `kind`; an option of one kind
is refused in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamtrain.labels import COUNT_QUANTITIES
from streamtrain.schema import ConfigError, setting

HeadName: TypeAlias = Literal[
    "auto",
    "mse",
    "log_cosh",
    "msle",
    "gaussian",
    "poisson",
    "negative_binomial",
    "joint_counts",
    "flow",
]

COUNT_HEADS = ("poisson", "negative_binomial", "joint_counts")
"""Heads that learn the number of halos per bin, whatever the label's scale."""


@dataclass(frozen=True)
class AnyNetworkConfig:
    """What every network has."""

    kind: str = setting("hybrid", "which network")
    head: HeadName = setting(
        "auto",
        "what it predicts for each luminosity bin, and its loss; auto: mse, cross-entropy of a "
        "class, or the flow of parameters",
    )
    monotonic: bool = setting(False, "N(>L) that never rises with L; for label.quantity cumulative")
    dense: int = setting(256, "width of the dense layer", low=1, high=65536)
    dropout: float = setting(0.0, "dropout of the dense layer", low=0, high=0.95)


@dataclass(frozen=True)
class HybridConfig(AnyNetworkConfig):
    """Power spectrum, voxel intensities and sky means of convolutions of weighted channels."""

    kind: Literal["hybrid"] = setting("hybrid", "which network")
    power_bins: int = setting(8, "bins of k_perp, at most", low=1, high=1000)
    slabs: int = setting(8, "bins of k_par, at most", low=1, high=1000)
    voxel_bins: int = setting(
        32, "bins of the voxel intensity distribution; half of them for each joining, at least 8",
        low=2, high=1000,
    )  # fmt: skip
    scales: int = setting(
        3, "voxel intensity distributions, of the map and of it joined by 2, 4 ... pixels", low=1,
        high=10,
    )  # fmt: skip
    layers: int = setting(3, "convolutions, each after a pooling by two", low=1, high=10)
    filters: int = setting(8, "filters of the first layer; doubled by each", low=1, high=1024)
    kernel: int = setting(3, "side of the kernels", choices=(1, 3, 5, 7))
    dense_layers: int = setting(2, "dense layers", low=1, high=20)


@dataclass(frozen=True)
class MeansConfig(AnyNetworkConfig):
    """2-D convolutions, frequencies as channels; the sky means of all layers decide."""

    kind: Literal["means"] = setting("means", "which network")
    layers: int = setting(4, "convolutions, each followed by a pooling by two", low=1, high=10)
    filters: int = setting(32, "filters of the first layer; doubled by each", low=1, high=1024)
    kernel: int = setting(3, "side of the kernels", choices=(1, 3, 5, 7))
    max_filters: int = setting(256, "filters never exceed this", low=1, high=8192)


@dataclass(frozen=True)
class CNNConfig(AnyNetworkConfig):
    """The convolutional networks of 1905.10376's code: a flattened last layer decides."""

    kind: Literal["cnn"] = setting("cnn", "which network")
    dense: int = setting(1000, "width of the dense layer", low=1, high=65536)
    dropout: float = setting(0.2, "dropout after every layer", low=0, high=0.95)
    dimensions: Literal[2, 3] = setting(2, "2: frequencies are channels; 3: frequency is an axis")
    layers: int = setting(4, "convolutions, each followed by a pooling by two", low=1, high=10)
    filters: int = setting(16, "filters of the first layer; doubled by each", low=1, high=1024)
    kernel: int = setting(5, "side of the kernels on the sky", choices=(1, 3, 5, 7))
    kernel_freq: int | None = setting(
        None, "side of the kernels along frequency, in 3 dimensions; default: 3", choices=(1, 3, 5)
    )
    pooling: Literal["convolution", "max"] = setting(
        "convolution", "how a layer is halved: a 2 x 2 convolution with stride 2, or the maximum"
    )
    batch_norm: bool = setting(True, "batch normalisation after every convolution but the poolings")


@dataclass(frozen=True)
class ResNetConfig(AnyNetworkConfig):
    """The 3-D residual network of 1905.10376."""

    kind: Literal["resnet"] = setting("resnet", "which network")
    dense: int = setting(1000, "width of the dense layer", low=1, high=65536)
    dropout: float = setting(0.5, "dropout of the dense layer", low=0, high=0.95)
    filters: int = setting(64, "filters of the first layer", low=1, high=1024)


@dataclass(frozen=True)
class ResNeXtConfig(AnyNetworkConfig):
    """The 3-D residual network of 1905.10376 with grouped convolutions (1611.05431)."""

    kind: Literal["resnext"] = setting("resnext", "which network")
    dense: int = setting(1000, "width of the dense layer", low=1, high=65536)
    dropout: float = setting(0.5, "dropout of the dense layer", low=0, high=0.95)
    filters: int = setting(64, "filters of the first layer", low=1, high=1024)
    cardinality: int = setting(32, "groups of the 3 x 3 x 3 convolutions", low=1, high=1024)


@dataclass(frozen=True)
class CompactConfig(AnyNetworkConfig):
    """Residual blocks of depthwise convolutions; the sky means of all stages decide."""

    kind: Literal["compact"] = setting("compact", "which network")
    layers: int = setting(4, "stages, each on half the pixels of the one before", low=1, high=10)
    blocks: int = setting(1, "residual blocks per stage but the first", low=0, high=100)
    filters: int = setting(32, "filters of the first stage; doubled by each", low=1, high=1024)
    kernel: int = setting(3, "side of the kernels", choices=(1, 3, 5, 7))
    max_filters: int = setting(256, "filters never exceed this", low=1, high=8192)


@dataclass(frozen=True)
class SummariesConfig(AnyNetworkConfig):
    """Dense layers on the power spectrum and the voxel intensity distribution of the map."""

    kind: Literal["summaries"] = setting("summaries", "which network")
    power: Literal["spherical", "cylindrical", "none"] = setting(
        "spherical", "P(k), P(k_perp, k_par) or no power spectrum"
    )
    power_bins: int = setting(24, "bins of k, or of k_perp, at most", low=1, high=1000)
    slabs: int | None = setting(
        None, "cylindrical: bins of k_par, at most; default: 8", low=1, high=1000
    )
    voxel_bins: int = setting(32, "bins of the voxel intensity distribution; 0: none", low=0,
                              high=1000)  # fmt: skip
    layers: int = setting(2, "dense layers", low=1, high=20)


NetworkConfig: TypeAlias = (
    HybridConfig
    | MeansConfig
    | CNNConfig
    | ResNetConfig
    | ResNeXtConfig
    | CompactConfig
    | SummariesConfig
)
"""The section, of the kind that it names."""


def check_network(network: NetworkConfig, quantity: str, scale: str) -> None:
    """Raise ConfigError for what the types alone do not tell.

    quantity, scale: of the label.
    """
    head = network.head
    if network.monotonic and quantity != "cumulative":
        raise ConfigError(
            f"network.monotonic is for label.quantity = cumulative, not for {quantity}"
        )
    if head != "auto" and quantity == "class":
        raise ConfigError(
            f"network.head = {head}: a class has cross-entropy alone: network.head=auto"
        )
    if head == "flow" and quantity != "parameters":
        raise ConfigError(
            "network.head = flow is the posterior of a luminosity model's parameters, "
            f"label.quantity = parameters, not of {quantity}"
        )
    if quantity == "parameters" and head not in ("auto", "flow"):
        raise ConfigError(
            f"network.head = {head}: a label of parameters has the head flow alone (auto)"
        )
    if head in COUNT_HEADS and quantity not in COUNT_QUANTITIES:
        raise ConfigError(
            f"network.head = {head} is for the halos of separate bins, label.quantity = "
            f"{', '.join(COUNT_QUANTITIES)}, not for {quantity}: network.head=mse fits it"
        )
    if head == "msle" and scale == "log10":
        raise ConfigError(
            "network.head = msle takes the logarithm of a label in label.scale = linear; this one "
            "is in log10, where mse is the same without the 1 added"
        )
    if isinstance(network, CNNConfig) and network.dimensions == 2 and network.kernel_freq:
        raise ConfigError(
            f"network.kernel_freq = {network.kernel_freq} belongs to network.dimensions = 3; in 2 "
            "dimensions frequencies are channels"
        )
    if isinstance(network, SummariesConfig):
        _check_summaries(network)
    if isinstance(network, ResNeXtConfig) and 2 * network.filters % network.cardinality:
        raise ConfigError(
            f"network.cardinality = {network.cardinality} does not divide the "
            f"{2 * network.filters} channels that network.filters = {network.filters} gives its "
            "grouped convolutions"
        )


def _check_summaries(network: SummariesConfig) -> None:
    if network.slabs is not None and network.power != "cylindrical":
        raise ConfigError(
            f"network.slabs = {network.slabs} belongs to network.power = cylindrical, not to "
            f"{network.power}"
        )
    if network.power == "none" and network.voxel_bins == 0:
        raise ConfigError("network.power = none and network.voxel_bins = 0 leave nothing to see")
    if network.voxel_bins == 1:
        raise ConfigError("network.voxel_bins = 1 tells nothing apart: it must be 0 or at least 2")
