"""Named sets of operations, which a user can ask for by name. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nas.registry import unknown
from nas.search_space.darts import OPERATIONS as DARTS
from nas.search_space.nasbench201 import OPERATIONS as NASBENCH201

OPERATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Zoph et al. 2018, section 3, in their order. Separable convolutions are applied twice.
        "nasnet": (
            "skip_connect", "conv_1x3_3x1", "conv_1x7_7x1", "dilated_conv_3x3", "avg_pool_3x3",
            "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "conv_1x1", "conv_3x3",
            "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7",
        ),
        # Real et al. 2019, figure 1
        "amoebanet": (
            "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "avg_pool_3x3", "max_pool_3x3",
            "dil_conv_3x3", "conv_7x1_1x7",
        ),
        # Liu et al. 2018, section 3.1
        "pnas": (
            "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "conv_1x7_7x1", "skip_connect", "avg_pool_3x3",
            "max_pool_3x3", "dilated_conv_3x3",
        ),
        # Pham et al. 2018, section 2.4, in the order in which their code counts them
        "enas": ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect"),
        # blocks of published networks: any channels in and out, strides 1 and 2
        "blocks": (
            "basic_block", "bottleneck_block", "preact_basic_block", "wide_block", "resnext_block",
            "se_basic_block", "inception", "inception_v3", "dense_block", "fire", "inverted_residual",
            "shuffle_v2", "convnext_block",
        ),
        "residual_blocks": (
            "basic_block", "bottleneck_block", "preact_basic_block", "wide_block", "resnext_block",
            "se_basic_block",
        ),
        "inception_blocks": (
            "inception", "inception_v2", "inception_v3", "inception_resnet_a", "inception_resnet_b",
        ),
        "mobile_blocks": (
            "depthwise_separable", "inverted_residual", "fused_inverted_residual", "shuffle_v2", "fire",
        ),
        "modern_blocks": (
            "se_resnext_block", "selective_kernel", "fused_inverted_residual", "inverted_residual",
            "convnext_block",
        ),
        "darts": DARTS,
        "nasbench201": NASBENCH201,
    }
)  # fmt: skip


def operations(given: str | tuple[str, ...]) -> tuple[str, ...]:
    """The operations of the set of that name, or those that are given one by one.

    Raises ValueError, with the nearest match, if there is no such set.
    """
    if not isinstance(given, str):
        return tuple(given)
    if given not in OPERATIONS:
        raise ValueError(
            unknown("set of operations", given, OPERATIONS)
            + "; a set of your own is a list of operations, which `nas list primitives` shows"
        )
    return OPERATIONS[given]
