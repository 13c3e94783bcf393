from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.splits import stratified_split

FRACTIONS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def test_every_class_is_divided_in_the_same_proportions() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    parts = stratified_split(labels, fractions=FRACTIONS, seed=0)
    assert {split: np.bincount(labels[rows]).tolist() for split, rows in parts.items()} == {
        "train": [80, 40, 8],
        "valid": [10, 5, 1],
        "test": [10, 5, 1],
    }


@settings(max_examples=50)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    num_groups=st.integers(1, 60),
    seed=st.integers(0, 100),
)
def test_everything_goes_to_one_split_and_no_group_comes_apart(labels: list[int], num_groups: int, seed: int) -> None:
    groups = np.arange(len(labels)) % num_groups
    parts = stratified_split(np.array(labels), fractions=FRACTIONS, seed=seed, groups=groups)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    of_group = [set(groups[rows]) for rows in parts.values()]
    assert sum(map(len, of_group)) == len(set.union(*of_group))


def test_a_seed_gives_the_same_split_again_and_another_seed_another() -> None:
    labels = np.arange(100) % 2
    first, again, other = (stratified_split(labels, fractions=FRACTIONS, seed=seed) for seed in (0, 0, 1))
    assert first["valid"].tolist() == again["valid"].tolist() != other["valid"].tolist()


def test_more_of_one_class_leaves_the_others_where_they_were() -> None:
    labels = np.repeat([0, 1], 50)
    before = stratified_split(labels, fractions=FRACTIONS, seed=0)
    after = stratified_split(np.append(labels, np.ones(30, int)), fractions=FRACTIONS, seed=0)
    for split in FRACTIONS:
        assert [row for row in before[split] if row < 50] == [row for row in after[split] if row < 50]


def test_a_class_of_fewer_than_three_is_all_train() -> None:
    parts = stratified_split(np.array([0] * 10 + [1, 1]), fractions=FRACTIONS, seed=0)
    assert {10, 11} <= set(parts["train"].tolist())
