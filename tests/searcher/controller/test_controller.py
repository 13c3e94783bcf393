"""The controller's probabilities, by enumeration; and that learning goes where rewards point."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from searcher.arch.decisions import Anchor, Choice, Inputs, Pointer, Step, Subset, num_tokens
from searcher.arch.spaces.macro import MacroSpace
from searcher.arch.spaces.micro import PUBLISHED_OPERATIONS, MicroSpace
from searcher.controller.policy import LstmPolicy, PolicyConfig, Sample
from searcher.controller.random_policy import RandomPolicy
from searcher.controller.reinforce import Baseline, ReinforceConfig, reinforce_loss, skip_penalty

SMALL = (Inputs(2), Pointer(2), Pointer(2), Choice(("a", "b", "c"), scope="x"), Anchor(), Pointer(3))
WITH_SUBSETS = (Choice(("a", "b"), scope="x"), Subset(0), Choice(("a", "b"), scope="x"), Subset(1), Subset(2))
MICRO = MicroSpace(num_nodes=1).steps()
MACRO = MacroSpace(num_layers=3).steps()
# Far from uniform, so that a wrong formula shows.
UNEVEN = PolicyConfig(hidden_size=8, weight_range=1.5, temperature=0.5, tanh_constant=2.5)


def every_row(steps: tuple[Step, ...]) -> torch.Tensor:
    """All rows of tokens: [number of architectures, T]."""
    options: list[int] = []
    for step in steps:
        if isinstance(step, Choice):
            options.append(len(step.options))
        elif isinstance(step, Pointer):
            options.append(step.num_candidates)
        elif isinstance(step, Subset):
            options += [2] * step.num_candidates
    return torch.tensor(list(itertools.product(*map(range, options))))


@pytest.mark.parametrize("steps", [SMALL, WITH_SUBSETS, MICRO, MACRO])
@pytest.mark.parametrize("kind", ["lstm", "random"])
def test_probabilities_of_all_architectures_sum_to_one_and_give_the_entropy(steps: tuple[Step, ...], kind: str) -> None:
    policy = LstmPolicy(steps, UNEVEN, seed=0) if kind == "lstm" else RandomPolicy(steps)
    rows = every_row(steps)
    sample = policy.score(rows)
    probability = sample.log_prob.double().exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-5)
    true_entropy = -(probability * sample.log_prob).sum().item()
    assert (probability * sample.entropy).sum().item() == pytest.approx(true_entropy, abs=1e-4)
    if kind == "random":
        assert true_entropy == pytest.approx(math.log(len(rows)), abs=1e-4)
    else:
        assert true_entropy < 0.97 * math.log(len(rows))


@pytest.mark.parametrize("steps", [SMALL, WITH_SUBSETS])
def test_architectures_are_drawn_as_often_as_their_probability_says(steps: tuple[Step, ...]) -> None:
    policy = LstmPolicy(steps, UNEVEN, seed=0)
    rows = every_row(steps)
    with torch.no_grad():
        drawn = policy.sample(40_000, generator=torch.Generator().manual_seed(0)).tokens
        expected = policy.score(rows).log_prob.exp()
    counts = torch.stack([(drawn == row).all(1).sum() for row in rows])
    standard_error = (expected * (1 - expected) / 40_000).sqrt()
    # The last term is two draws: what a normal bound does not cover for the rarest rows.
    assert ((counts / 40_000 - expected).abs() < 5 * standard_error + 2 / 40_000).all()


@pytest.mark.parametrize("steps", [SMALL, WITH_SUBSETS, MICRO, MACRO])
def test_a_sample_scores_as_it_was_drawn(steps: tuple[Step, ...]) -> None:
    policy = LstmPolicy(steps, UNEVEN, seed=3)
    sample = policy.sample(32, generator=torch.Generator().manual_seed(1))
    assert sample.tokens.shape == (32, num_tokens(steps))
    again = policy.score(sample.tokens)
    torch.testing.assert_close(again.log_prob, sample.log_prob)
    torch.testing.assert_close(again.entropy, sample.entropy)


def test_equal_generators_draw_equal_architectures() -> None:
    policy = LstmPolicy(MICRO, UNEVEN, seed=3)
    first, second = (policy.sample(8, generator=torch.Generator().manual_seed(5)).tokens for _ in range(2))
    assert torch.equal(first, second)


def test_logits_stay_within_the_tanh_constant() -> None:
    policy = LstmPolicy(SMALL, replace(UNEVEN, weight_range=50.0, tanh_constant=1.1), seed=0)
    with torch.no_grad():
        log_prob = policy.score(every_row(SMALL)).log_prob
    # The least likely row loses at most 2.2 nats against the best at each of its four decisions.
    smallest = sum(-math.log(1 + (k - 1) * math.exp(2.2)) for k in (2, 2, 3, 3))
    assert log_prob.min().item() >= smallest - 1e-4


def test_the_operation_bias_favours_separable_convolutions_in_the_first_cell_only() -> None:
    config = PolicyConfig(
        tanh_constant=1.10,
        operation_tanh_divisor=2.5,
        operation_bias={name: 0.25 if "conv" in name else -0.25 for name in PUBLISHED_OPERATIONS},
        operation_logit_start={"sep_conv_3x3": 10.0, "sep_conv_5x5": 10.0},
    )
    policy = LstmPolicy(MicroSpace(5).steps(), config, seed=0)
    with torch.no_grad():
        tokens = policy.sample(4000, generator=torch.Generator().manual_seed(0)).tokens.view(4000, 2, 5, 4)
    separable = (tokens[..., 2:] <= 1).float().mean(dim=(0, 2, 3))  # [cells]
    assert separable[0].item() == pytest.approx(0.63, abs=0.015)
    assert separable[1].item() == pytest.approx(0.51, abs=0.015)


def test_a_bias_of_an_operation_that_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policy\.operation_bias: unknown operation 'd'; expected one of a, b, c"):
        LstmPolicy(SMALL, replace(UNEVEN, operation_bias={"d": 1.0}), seed=0)


def test_biases_are_of_names_whatever_else_there_is_to_choose() -> None:
    config = replace(UNEVEN, weight_range=1e-6, operation_bias={"identity": 1.0})
    for operations in (("identity", "avg_pool_3x3"), ("avg_pool_3x3", "sep_conv_3x3", "identity")):
        policy = LstmPolicy(MicroSpace(1, operations).steps(), config, seed=0)
        with torch.no_grad():
            tokens = policy.sample(4000, generator=torch.Generator().manual_seed(0)).tokens
        chosen = (tokens[:, 2] == operations.index("identity")).float().mean().item()
        assert chosen == pytest.approx(math.e / (math.e + len(operations) - 1), abs=0.03)


def test_the_stem_has_a_learned_anchor_that_only_its_own_skips_attend_to() -> None:
    policy = LstmPolicy(MacroSpace(4).steps(), UNEVEN, seed=0)
    no_skips = torch.zeros(1, 10, dtype=torch.int64)
    with torch.no_grad():
        before = policy.score(no_skips).skip_probs
        policy.learned_anchors[0].add_(1.0)
        after = policy.score(no_skips).skip_probs
    assert [probs.shape for probs in after] == [(1, 1), (1, 2), (1, 3)]
    for old, new in zip(before, after, strict=True):
        assert (old != new).tolist() == [[True, *[False] * (old.shape[1] - 1)]]


def test_without_an_anchor_for_the_stem_its_skips_attend_to_the_first_layer() -> None:
    # Both policies have the same weights; only one can point at the stem.
    shifted = LstmPolicy(MacroSpace(4, stem_anchor=False).steps(), UNEVEN, seed=0)
    own = LstmPolicy(MacroSpace(4).steps(), UNEVEN, seed=1)
    own.load_state_dict(shifted.state_dict(), strict=False)
    no_skips = torch.zeros(1, 10, dtype=torch.int64)
    with torch.no_grad():
        ours, authors = (policy.score(no_skips).skip_probs for policy in (own, shifted))
    for layer in range(3):
        assert torch.equal(ours[layer][:, 1:], authors[layer][:, :layer])


def test_skips_are_drawn_as_often_as_the_probabilities_handed_out_say() -> None:
    policy = LstmPolicy(WITH_SUBSETS, UNEVEN, seed=0)
    with torch.no_grad():
        sample = policy.sample(40_000, generator=torch.Generator().manual_seed(0))
    first, second = sample.skip_probs
    expected = torch.cat([first, second], dim=1).mean(dim=0)
    drawn = sample.tokens[:, 2:].float().mean(dim=0)
    torch.testing.assert_close(drawn, expected, atol=5 * 0.5 / 200, rtol=0)
    assert ((expected - 0.5).abs() > 0.05).any()


def test_the_skip_penalty_is_summed_over_a_layers_candidates_and_averaged_over_layers() -> None:
    # KL of 0.5 from 0.4 is 0.5 ln(5/4) + 0.5 ln(5/6); of 0.3 it is 0.3 ln(3/4) + 0.7 ln(7/6); of 0.4 it is 0.
    half, less = 0.0204110, 0.0215992
    probs = [torch.tensor([[0.5], [0.4]]), torch.tensor([[0.3, 0.5], [0.4, 0.4]])]
    penalty = skip_penalty(probs, target=0.4)
    torch.testing.assert_close(penalty, torch.tensor([(half + less + half) / 2, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("logit", [-40.0, -9.0, 0.0, 9.0, 40.0])
def test_the_skip_penalty_has_a_gradient_however_certain_a_skip_is(logit: float) -> None:
    logits = torch.full((1, 1), logit, requires_grad=True)
    penalty = skip_penalty([torch.sigmoid(2 * logits)], target=0.4)
    penalty.backward()
    assert torch.isfinite(penalty).all()
    assert torch.isfinite(logits.grad).all()


def test_the_skip_penalty_enters_the_loss_with_its_weight() -> None:
    policy = LstmPolicy(MACRO, UNEVEN, seed=0)
    sample = policy.sample(4, generator=torch.Generator().manual_seed(0))
    rewards = torch.rand(4)
    plain, penalised = (
        reinforce_loss(sample, rewards, baseline=Baseline(config), config=config)
        for config in (ReinforceConfig(), ReinforceConfig(skip_weight=0.8, skip_target=0.4))
    )
    expected = 0.8 * skip_penalty(sample.skip_probs, target=0.4).mean()
    assert expected.item() > 0.01
    torch.testing.assert_close(penalised - plain, expected)


def test_the_skip_penalty_leads_to_its_target() -> None:
    policy = LstmPolicy(MacroSpace(5).steps(), PolicyConfig(hidden_size=16), seed=0)
    config = ReinforceConfig(skip_weight=1.0, skip_target=0.2, entropy_weight=0.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        sample = policy.sample(16, generator=generator)
        loss = reinforce_loss(sample, torch.zeros(16), baseline=Baseline(config), config=config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = torch.cat(policy.sample(400, generator=generator).skip_probs, dim=1).mean().item()
    assert share == pytest.approx(0.2, abs=0.03)


def test_spaces_without_skips_have_no_skip_penalty() -> None:
    sample = LstmPolicy(SMALL, UNEVEN, seed=0).sample(4, generator=torch.Generator().manual_seed(0))
    assert sample.skip_probs == ()
    losses = [
        reinforce_loss(sample, torch.arange(4.0), baseline=Baseline(config), config=config)
        for config in (ReinforceConfig(), ReinforceConfig(skip_weight=0.8))
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"skip_target": 1.0}, "skip_target is 1.0; it must lie between 0 and 1"),
        ({"skip_weight": -1.0}, "skip_weight is -1.0; it must not be negative"),
    ],
)
def test_settings_of_the_skip_penalty_are_checked(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReinforceConfig(**setting)  # type: ignore[arg-type]


def test_a_moving_average_decays_as_often_as_there_are_rewards() -> None:
    config = ReinforceConfig(baseline="moving_average", baseline_decay=0.99)
    at_once, one_by_one = Baseline(config), Baseline(config)
    for step in range(5):
        at_once(torch.full((20,), float(step)))
        for _ in range(20):
            one_by_one(torch.full((1,), float(step)))
    assert at_once.value == pytest.approx(one_by_one.value)


def trained(reward_of: object, config: ReinforceConfig, *, num_updates: int) -> tuple[LstmPolicy, LstmPolicy]:
    """A policy before and after some updates; `reward_of` maps tokens [B, T] to rewards [B]."""
    before, policy = (LstmPolicy(SMALL, PolicyConfig(hidden_size=16), seed=0) for _ in range(2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
    baseline = Baseline(config)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_updates):
        sample = policy.sample(16, generator=generator)
        loss = reinforce_loss(sample, reward_of(sample.tokens), baseline=baseline, config=config)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, policy


@pytest.mark.parametrize("baseline", ["leave_one_out", "moving_average"])
def test_a_rewarded_choice_becomes_likelier(baseline: str) -> None:
    config = ReinforceConfig(baseline=baseline, entropy_weight=0.0)  # type: ignore[arg-type]
    before, after = trained(lambda tokens: (tokens[:, 2] == 1).float(), config, num_updates=60)

    def chance(policy: LstmPolicy) -> float:
        rows = every_row(SMALL)
        return policy.score(rows).log_prob.exp()[rows[:, 2] == 1].sum().item()

    assert chance(before) == pytest.approx(1 / 3, abs=0.05)
    assert chance(after) > 0.6


def test_a_rewarded_input_becomes_likelier() -> None:
    config = ReinforceConfig(entropy_weight=0.0)
    before, after = trained(lambda tokens: (tokens[:, 3] == 2).float(), config, num_updates=80)
    rows = every_row(SMALL)
    chance = [p.score(rows).log_prob.exp()[rows[:, 3] == 2].sum().item() for p in (before, after)]
    assert chance[1] > chance[0] + 0.2


def test_the_differentiated_entropy_bonus_flattens_the_policy() -> None:
    policy = LstmPolicy(SMALL, UNEVEN, seed=0)
    config = ReinforceConfig(entropy_weight=1.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
    rows = every_row(SMALL)

    def true_entropy() -> float:
        log_prob = policy.score(rows).log_prob
        return -(log_prob.exp() * log_prob).sum().item()

    before = true_entropy()
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        sample = policy.sample(16, generator=generator)
        loss = reinforce_loss(sample, torch.zeros(16), baseline=Baseline(config), config=config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert true_entropy() > before + 0.2


def test_entropy_in_the_reward_is_not_differentiated() -> None:
    policy = LstmPolicy(SMALL, UNEVEN, seed=0)
    sample = policy.sample(4, generator=torch.Generator().manual_seed(0))
    config = ReinforceConfig(entropy_in="reward", entropy_weight=0.5, entropy_reduction="mean")
    loss = reinforce_loss(sample, torch.zeros(4), baseline=Baseline(config), config=config)
    bonus = 0.5 * sample.entropy.detach() / sample.tokens.shape[1]
    others = (bonus.sum() - bonus) / 3
    expected = -((bonus - others) * sample.log_prob).mean()
    torch.testing.assert_close(loss, expected)


def test_the_leave_one_out_baseline_lowers_the_gradients_variance() -> None:
    policy = LstmPolicy(SMALL, PolicyConfig(hidden_size=8), seed=0)
    generator = torch.Generator().manual_seed(0)

    def gradient_noise(kind: str) -> float:
        config = ReinforceConfig(baseline=kind, entropy_weight=0.0)  # type: ignore[arg-type]
        baseline = Baseline(config)
        gradients = []
        for _ in range(200):
            sample = policy.sample(8, generator=generator)
            # All architectures of a step share a minibatch, and with it most of the luck.
            luck = 0.04 * torch.randn(1, generator=generator)
            rewards = 0.7 + 0.02 * (sample.tokens[:, 2] == 1) + luck
            loss = reinforce_loss(sample, rewards, baseline=baseline, config=config)
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))]))
        return torch.stack(gradients)[50:].var(dim=0).sum().item()

    assert gradient_noise("leave_one_out") < gradient_noise("moving_average") / 4


def test_leave_one_out_measures_each_reward_against_the_others() -> None:
    baseline = Baseline(ReinforceConfig(baseline="leave_one_out"))
    assert baseline(torch.tensor([0.2, 0.4, 0.9])).tolist() == pytest.approx([0.65, 0.55, 0.3])


def test_the_moving_average_starts_at_the_first_mean_and_follows_slowly() -> None:
    baseline = Baseline(ReinforceConfig(baseline="moving_average", baseline_decay=0.9))
    assert baseline(torch.tensor([0.2, 0.4])).tolist() == pytest.approx([0.3, 0.3])
    assert baseline(torch.tensor([0.5, 0.5])).tolist() == pytest.approx([0.3, 0.3])
    # As two updates do, one for each architecture.
    assert baseline.value == pytest.approx(0.9**2 * 0.3 + (1 - 0.9**2) * 0.5)
    baseline(torch.tensor([0.5]))
    assert baseline.value == pytest.approx(0.9**3 * 0.3 + (1 - 0.9**3) * 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_refused(bad: float) -> None:
    sample = Sample(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2))
    config = ReinforceConfig()
    with pytest.raises(ValueError, match="a reward is not finite"):
        reinforce_loss(sample, torch.tensor([0.5, bad]), baseline=Baseline(config), config=config)
