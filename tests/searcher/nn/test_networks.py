"""Whole networks: what they compute, shapes, and what training arguments do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from foundation.document import ConfigError
from searcher.arch.spaces.macro import Layer, MacroArchitecture, MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spaces.stages import StagesSize
from searcher.arch.stages.architecture import Stage, StagesArchitecture, Stem
from searcher.nn.build import build_network, build_supernet
from tests.searcher.conftest import (
    CLASSES,
    STAGES_SPACE,
    make_spec,
    random_architecture,
    random_macro,
    random_stages,
)
from tests.searcher.norms import assert_close_in_norm


def test_a_macro_network_computes_what_its_description_says() -> None:
    layers = (Layer("conv_3x3"), Layer("max_pool_3x3"), Layer("sep_conv_5x5", (0, 1)))
    architecture = MacroArchitecture(layers)
    size = MacroSize(channels=4, skip_merge="sum")
    network = build_network(make_spec(architecture, size), form="search", running_statistics=False).network

    def norm(x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, None, None, training=True)

    stem, first, second, third = (network.stem, *network.layers)
    images = torch.randn(4, 1, 12, 12)
    tensors = [stem(images)]
    tensors.append(first.operations["conv_3x3"](tensors[0]))
    tensors = [network.reductions["1"][str(i)](x) for i, x in enumerate(tensors)]
    tensors.append(norm(second.operations["max_pool_3x3"](tensors[1])))
    tensors = [network.reductions["2"][str(i)](x) for i, x in enumerate(tensors)]
    tensors.append(norm(third.operations["sep_conv_5x5"](tensors[2]) + tensors[0] + tensors[1]))
    expected = tensors[3].mean(dim=(2, 3)) @ network.classifier.weight.T
    torch.testing.assert_close(network(images, architecture)[0], expected)


def test_both_forms_of_a_macro_network_that_concatenates_compute_the_same() -> None:
    architecture = random_macro(2)
    spec = make_spec(architecture, MacroSize(channels=4))
    search, final = (build_network(spec, form=form).network for form in ("search", "final"))
    weights = search.state_dict()
    for index, layer in enumerate(architecture.layers[1:], start=1):
        prefix = f"layers.{index}.merge"
        blocks = [weights.pop(f"{prefix}.blocks.{source}.weight") for source in (*layer.skips, index + 1)]
        weights[f"{prefix}.projection.conv.weight"] = torch.cat(blocks, dim=1)
        for key in [key for key in weights if key.startswith(f"{prefix}.norm")]:
            weights[key.replace(".norm", ".projection.norm")] = weights.pop(key)
    final.load_state_dict(weights)
    images = torch.randn(4, 1, 12, 12)
    torch.testing.assert_close(final(images, architecture)[0], search(images, architecture)[0])


@pytest.mark.parametrize(("side", "stem_stride"), [(16, 1), (28, 2), (30, 2), (33, 2), (224, 8)])
@pytest.mark.parametrize("double_channels", [True, False])
def test_final_macro_networks_take_any_size(side: int, stem_stride: int, double_channels: bool) -> None:
    size = MacroSize(channels=4, stem_stride=stem_stride, double_channels=double_channels)
    network = build_network(make_spec(random_macro(0), size, input_shape=(side, side, 3)), dropout_prob=0.1)
    logits, auxiliary_logits = network(torch.randn(2, 3, side, side))
    assert logits.shape == (2, len(CLASSES))
    assert auxiliary_logits is None
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_what_no_later_layer_reads_is_not_halved() -> None:
    architecture = MacroArchitecture((Layer("conv_3x3"), Layer("conv_3x3"), Layer("conv_3x3", (1,)), Layer("conv_3x3")))
    network = build_network(make_spec(architecture, MacroSize(channels=4))).network
    assert [list(tensors) for tensors in network.reductions.values()] == [["1"], ["1", "2"]]


def test_a_macro_network_refuses_what_it_has_not() -> None:
    spec = make_spec(random_macro(0), MacroSize(channels=4))
    with pytest.raises(ConfigError, match="a macro network has no auxiliary head; auxiliary_weight must be 0"):
        build_network(spec, auxiliary=True)
    with pytest.raises(ConfigError, match="a macro network has no paths to drop; drop_path_prob must be 0"):
        build_network(spec)(torch.randn(2, 1, 12, 12), drop_path_prob=0.1)


def test_a_stages_network_refuses_what_it_has_not() -> None:
    spec = make_spec(random_stages(0), StagesSize())
    with pytest.raises(ConfigError, match="a stages network has no auxiliary head; auxiliary_weight must be 0"):
        build_network(spec, auxiliary=True)
    with pytest.raises(ConfigError, match="a stages network has no paths to drop; drop_path_prob must be 0"):
        build_network(spec)(torch.randn(2, 1, 12, 12), drop_path_prob=0.1)


@pytest.mark.parametrize(("side", "stem_stride"), [(16, 1), (28, 2), (30, 2), (33, 2), (224, 8)])
def test_stages_networks_take_any_size(side: int, stem_stride: int) -> None:
    architecture = StagesArchitecture(Stem(4, stem_stride), random_stages(0).stages)
    network = build_network(make_spec(architecture, StagesSize(), input_shape=(side, side, 3)), dropout_prob=0.1)
    logits, auxiliary_logits = network(torch.randn(2, 3, side, side))
    assert logits.shape == (2, len(CLASSES))
    assert auxiliary_logits is None
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_stages_network_computes_what_its_description_says() -> None:
    stages = (Stage(4, ("fused_3x3_e2",)), Stage(6, ("residual_3x3", "inverted_5x5_e4")))
    spec = make_spec(StagesArchitecture(Stem(4, 2), stages), StagesSize())
    network = build_network(spec, running_statistics=False).network
    weights = network.state_dict()

    def conv(x: torch.Tensor, name: str, *, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        return functional.batch_norm(y, None, None, training=True)

    images = torch.randn(4, 1, 12, 12)
    x = conv(images, "stem.convs.0", stride=2).relu()
    x = x + conv(conv(x, "stages.0.0.fused_3x3.expand").relu(), "stages.0.0.fused_3x3.project")
    name = "stages.1.0.residual_3x3"
    y = conv(conv(x, f"{name}.conv1", stride=2).relu(), f"{name}.conv2")
    x = (y + conv(x, f"{name}.shortcut", stride=2)).relu()
    name = "stages.1.1.inverted_5x5"
    y = conv(conv(x, f"{name}.expand").relu(), f"{name}.depthwise", groups=24).relu()
    x = x + conv(y, f"{name}.project")
    expected = x.mean(dim=(2, 3)) @ weights["classifier.weight"].T
    torch.testing.assert_close(network(images, spec.architecture)[0], expected)


@pytest.mark.parametrize(("side", "stem_stride"), [(16, 1), (28, 2), (30, 2), (33, 2), (224, 8)])
def test_final_networks_take_any_size(side: int, stem_stride: int) -> None:
    size = MicroSize(cells=5, channels=4, stem_stride=stem_stride)
    network = build_network(make_spec(random_architecture(0), size, input_shape=(side, side, 3)), auxiliary=True)
    logits, auxiliary_logits = network(torch.randn(2, 3, side, side), drop_path_prob=0.3)
    assert logits.shape == (2, len(CLASSES))
    assert auxiliary_logits is not None
    assert auxiliary_logits.shape == (2, len(CLASSES))
    (logits.sum() + auxiliary_logits.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_auxiliary_head_answers_only_in_training() -> None:
    network = build_network(make_spec(random_architecture(0), MicroSize(5, 4)), auxiliary=True).eval()
    assert network(torch.randn(2, 1, 12, 12))[1] is None


def test_reduction_cells_stand_where_the_authors_put_them() -> None:
    positions = {cells: MicroSize(cells, 4).reduction_cells for cells in (3, 5, 8, 17)}
    assert positions == {3: (0, 1), 5: (1, 3), 8: (2, 5), 17: (5, 11)}


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    def weights(seed: int) -> torch.Tensor:
        network = build_supernet(
            "micro", MicroSpace(2), MicroSize(3, 4), input_shape=(8, 8, 1), num_classes=3, seed=seed
        )
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_convolutions_start_with_the_variance_of_he() -> None:
    network = build_supernet("micro", MicroSpace(2), MicroSize(3, 64), input_shape=(8, 8, 3), num_classes=3, seed=0)
    weight = dict(network.named_parameters())["cells.2.nodes.0.0.from0_sep_conv_3x3.pointwise1.weight"]
    fan_in = weight.shape[1]
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)


def test_scores_do_not_depend_on_the_order_of_the_batch() -> None:
    network = build_network(make_spec(random_architecture(1), MicroSize(3, 4))).eval()
    images = torch.randn(6, 1, 12, 12)
    order = torch.randperm(6)
    torch.testing.assert_close(network(images[order])[0], network(images)[0][order])


@pytest.mark.gpu
@pytest.mark.parametrize("space", ["micro", "macro", "stages"])
def test_cuda_computes_what_the_cpu_computes(space: str) -> None:
    architecture, options, size = {
        "micro": (random_architecture(1), MicroSpace(3), MicroSize(5, 8)),
        "macro": (random_macro(1), MacroSpace(6), MacroSize(8)),
        "stages": (random_stages(1), STAGES_SPACE, StagesSize()),
    }[space]
    supernet = build_supernet(space, options, size, input_shape=(12, 12, 1), num_classes=3, seed=0)
    images = torch.randn(8, 1, 12, 12)
    expected, _ = supernet(images, architecture)
    actual, _ = supernet.cuda()(images.cuda(), architecture)
    assert_close_in_norm(actual, expected, bound=1e-4)
