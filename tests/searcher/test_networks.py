"""Whole networks: published sizes, shapes, and what training arguments do."""

from __future__ import annotations

import pytest
import torch

from searcher.arch.micro import MicroSize, MicroSpace, from_published
from searcher.arch.spec import Spec, Task
from searcher.nn.build import build_network, build_supernet
from tests.searcher.conftest import CLASSES, make_spec, random_architecture

PUBLISHED = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1  1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"


def num_parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("auxiliary", "expected"), [(False, 3_894_372), (True, 4_389_220)])
def test_the_published_network_has_the_size_of_the_authors_code(auxiliary: bool, expected: int) -> None:
    # The paper's table says 4.6 M; the sizes derived from its code are 3.894 M, and 4.39 M with the auxiliary head.
    classes = tuple("abcdefghij")
    task = Task("cifar10", "image-classification", (32, 32, 3), classes)
    spec = Spec("micro", from_published(PUBLISHED), MicroSize(cells=17, channels=36), task)
    assert num_parameters(build_network(spec, auxiliary=auxiliary)) == expected


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
def test_cuda_computes_what_the_cpu_computes() -> None:
    architecture = random_architecture(1)
    supernet = build_supernet("micro", MicroSpace(3), MicroSize(5, 8), input_shape=(12, 12, 1), num_classes=3, seed=0)
    images = torch.randn(8, 1, 12, 12)
    expected, _ = supernet(images, architecture)
    actual, _ = supernet.cuda()(images.cuda(), architecture)
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-2, rtol=1e-2)  # TF32 keeps 10 bits of mantissa
