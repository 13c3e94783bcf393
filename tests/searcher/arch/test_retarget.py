"""Specs for other data sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from searcher.arch.catalog import published_spec
from searcher.arch.errors import ArchitectureError
from searcher.arch.retarget import retarget
from searcher.arch.spaces.micro import MicroSize
from searcher.arch.spaces.stages import StagesSize
from searcher.arch.tasks import ImageClassification, LanguageModelling
from searcher.nn.build import build_network
from tests.searcher.conftest import CLASSES, make_spec, make_text_spec, random_architecture, random_recurrent

TEXT = LanguageModelling(dataset="words", tokens="word", vocabulary_size=7)


def pictures(size: int) -> ImageClassification:
    return ImageClassification(dataset="shapes", input_shape=(size, size - 2, 1), classes=CLASSES)


@pytest.mark.parametrize(("size", "stride"), [(16, 1), (28, 1), (32, 1), (33, 2), (64, 2), (224, 8), (2000, 16)])
def test_a_published_networks_stem_is_fitted_to_the_pictures(size: int, stride: int) -> None:
    spec = retarget(published_spec("resnet-20"), pictures(size))
    assert (spec.architecture.stem.stride, spec.task) == (stride, pictures(size))
    assert spec.architecture.stages == published_spec("resnet-20").architecture.stages
    assert retarget(published_spec("enas-micro-published"), pictures(size)).network.stem_stride == stride


def test_a_map_that_was_smaller_stays_so() -> None:
    spec = make_spec(random_architecture(0), MicroSize(5, 4, stem_stride=2), input_shape=(28, 28, 1))
    assert [retarget(spec, pictures(size)).network.stem_stride for size in (14, 28, 29, 32)] == [1, 2, 4, 4]


def test_a_retargeted_network_is_built() -> None:
    spec = retarget(published_spec("resnet-20"), pictures(48))
    assert isinstance(spec.network, StagesSize)
    assert build_network(spec).eval()(torch.zeros(1, 1, 48, 46))[0].shape == (1, len(CLASSES))


def test_a_text_gets_another_vocabulary() -> None:
    spec = make_text_spec(random_recurrent(0))
    assert retarget(spec, TEXT) == replace(spec, task=TEXT)


def test_a_task_of_another_kind_is_refused() -> None:
    message = "task: stages networks are for image-classification, not for language-modelling"
    with pytest.raises(ArchitectureError, match=message):
        retarget(published_spec("resnet-20"), TEXT)
