"""The controller: an LSTM that makes a space's decisions one after the other, for a batch of architectures at once.

Knows a sequence of decisions, nothing of networks. `arch/decisions.py` defines a step and what the LSTM reads after it.
Source: Pham et al. 2018, sections 2.1 to 2.4; logits as in Bello et al. 2017.
"""

# B architectures, T tokens, N anchors, H hidden size, K options

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from foundation.document import ConfigError, unknown
from searcher.arch.decisions import Anchor, Choice, Inputs, LearnedAnchor, Pointer, Step, Subset, num_tokens
from searcher.arch.limits import MAX_WIDTH, check_at_most


class Sample(NamedTuple):
    """A batch of architectures as tokens, with their probabilities under the policy.

    tokens: [B, T] int64. log_prob: [B], natural log of the probability of all the row's tokens. entropy: [B], nats, the
    sum over the row's decisions of the entropy of each, given the decisions before it. skip_probs: for each Subset with
    candidates, the probability of taking each of its N, given the decisions before it, [B, N].
    """

    tokens: Tensor
    log_prob: Tensor
    entropy: Tensor
    skip_probs: tuple[Tensor, ...] = ()


class Policy(Protocol):
    """Draws architectures. `LstmPolicy` learns; `RandomPolicy` does not."""

    def sample(self, batch_size: int, *, generator: torch.Generator) -> Sample:
        """Draw `batch_size` architectures."""
        ...

    def score(self, tokens: Tensor) -> Sample:
        """log_prob and entropy of given architectures, tokens [B, T]."""
        ...


@dataclass(frozen=True)
class PolicyConfig:
    """The controller's size and the shape of its logits."""

    kind: Literal["lstm", "random"] = "lstm"
    """random draws every decision uniformly and learns nothing: the control to compare a search with."""
    hidden_size: int = 64
    """Of the LSTM, its embeddings and its attention. Paper: 100; the authors' code: 64."""
    temperature: float = 1.0
    """Logits are divided by it, before the tanh. Paper: 5."""
    tanh_constant: float = 1.5
    """Logits are limited to ± this, so that the policy stays able to explore. Paper: 2.5."""
    operation_tanh_divisor: float = 1.0
    """Logits of operations are limited to ± tanh_constant / this. Authors' micro code: 2.5."""
    operation_bias: Mapping[str, float] = field(default_factory=dict)
    """Constants added to the logits of the named operations, only in the first cell. Authors' micro code: 0.25 for
    convolutions, -0.25 for all others."""
    operation_logit_start: Mapping[str, float] = field(default_factory=dict)
    """Initial values of the learned biases of the named operations, inside the tanh. Authors' micro code: 10 for
    convolutions."""
    weight_range: float = 0.1
    """Weights are initialised uniformly in ± this. Paper and code: 0.1."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ConfigError(f"hidden_size is {self.hidden_size}; at least 1 is needed")
        check_at_most(MAX_WIDTH, hidden_size=self.hidden_size)
        for name in ("temperature", "tanh_constant", "operation_tanh_divisor", "weight_range"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")


def check_policy(config: PolicyConfig, steps: Sequence[Step]) -> None:
    """Raises: ConfigError: a setting of operations names one that cannot be chosen."""
    known = dict.fromkeys(option for step in steps if isinstance(step, Choice) for option in step.options)
    for name in ("operation_bias", "operation_logit_start"):
        for operation in getattr(config, name):
            if operation not in known:
                raise ConfigError(f"policy.{name}: {unknown('operation', operation, known)}")


class LstmPolicy(nn.Module):
    """The learning controller for one sequence of steps."""

    def __init__(self, steps: Sequence[Step], config: PolicyConfig, *, seed: int) -> None:
        super().__init__()
        check_policy(config, steps)
        hidden = config.hidden_size
        self._steps = tuple(steps)
        self._config = config
        choices = [step for step in steps if isinstance(step, Choice)]
        self.start = nn.Parameter(torch.empty(1, hidden))
        self.learned_anchors = nn.ParameterList(
            torch.empty(1, hidden) for step in steps if isinstance(step, LearnedAnchor)
        )
        self.lstm = nn.LSTMCell(hidden, hidden, bias=False)
        self.embeddings = nn.ModuleDict({_table(c): nn.Embedding(len(c.options), hidden) for c in choices})
        self.classifiers = nn.ModuleDict({_table(c): nn.Linear(hidden, len(c.options)) for c in choices})
        self.anchor_projection = nn.Linear(hidden, hidden, bias=False)
        self.query_projection = nn.Linear(hidden, hidden, bias=False)
        self.attention = nn.Linear(hidden, 1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -config.weight_range, config.weight_range, generator=generator)
        for choice in choices:
            classifier = self.classifiers[_table(choice)]
            assert isinstance(classifier, nn.Linear)
            nn.init.zeros_(classifier.bias)
            classifier.bias.data.copy_(_values(config.operation_logit_start, choice))
        # Buffers, so that they move with the policy; constant, so that they are not in the checkpoint.
        concerned = [choice for choice in choices if any(name in config.operation_bias for name in choice.options)]
        self._biased = {choice: f"_bias{i}" for i, choice in enumerate(concerned) if choice.scope == concerned[0].scope}
        for choice, name in self._biased.items():
            self.register_buffer(name, _values(config.operation_bias, choice), persistent=False)

    def sample(self, batch_size: int, *, generator: torch.Generator) -> Sample:
        """Draw `batch_size` architectures in one pass; log_prob and entropy carry gradients.

        Uniform numbers come from `generator`, on the CPU: one seed gives the same architectures on every device.
        """
        uniforms = torch.rand(batch_size, num_tokens(self._steps), generator=generator)
        return self._run(uniforms.to(self.start.device), given=None)

    def score(self, tokens: Tensor) -> Sample:
        """log_prob and entropy of given architectures, tokens [B, T]."""
        return self._run(torch.zeros_like(tokens, dtype=torch.float32), given=tokens)

    def _run(self, uniforms: Tensor, *, given: Tensor | None) -> Sample:
        batch_size = uniforms.shape[0]
        state = (self.start.new_zeros(batch_size, self._config.hidden_size),) * 2
        start = self.start.expand(batch_size, -1)  # [B, H]
        x = start
        anchors: list[Tensor] = []  # each [B, H]
        projected: list[Tensor] = []  # W1 · anchor, each [B, H]
        tokens: list[Tensor] = []  # each [B, n], the n tokens of one step
        skip_probs: list[Tensor] = []  # each [B, N]
        log_prob = uniforms.new_zeros(batch_size)
        entropy = uniforms.new_zeros(batch_size)

        learned_anchors = iter(self.learned_anchors)
        position = 0  # of the step's first token in a row

        def decide(logits: Tensor) -> Tensor:
            """Draws n decisions, or takes given ones, and adds up their log_prob and entropy.

            Args: logits: [B, n, K]. Returns: tokens [B, n].
            """
            nonlocal log_prob, entropy, position
            place = slice(position, position + logits.shape[1])
            log_probs = logits.log_softmax(dim=-1)
            probs = log_probs.exp()
            if given is None:
                # Inverse of the cumulative distribution; the last bin is open, so rounding cannot pass its end.
                token = (probs.detach().cumsum(-1)[..., :-1] < uniforms[:, place, None]).sum(-1)
            else:
                token = given[:, place]
            tokens.append(token)
            log_prob = log_prob + log_probs.gather(2, token[..., None]).sum(dim=(1, 2))
            entropy = entropy - (probs * log_probs).sum(dim=(1, 2))
            position = place.stop
            return token

        def decide_one(logits: Tensor) -> Tensor:
            """As `decide`, for a single decision: logits [B, K] -> tokens [B]."""
            return decide(logits[:, None])[:, 0]

        for step in self._steps:
            if isinstance(step, Inputs):
                anchors, projected = [], []
                x = start
                for _ in range(step.count):
                    state = self.lstm(x, state)
                    anchors.append(torch.zeros_like(state[0]))
                    # A blank anchor still has its own projection, of the LSTM's state at its step.
                    projected.append(self.anchor_projection(state[0]))
                continue
            if isinstance(step, LearnedAnchor):
                anchors.append(next(learned_anchors).expand(batch_size, -1))
                projected.append(self.anchor_projection(anchors[-1]))
                continue
            state = self.lstm(x, state)
            hidden = state[0]
            if isinstance(step, Choice):
                token = decide_one(self._choice_logits(hidden, step))
                x = self.embeddings[_table(step)](token)
            elif isinstance(step, Pointer):
                token = decide_one(self._limit(self._attend(hidden, projected[: step.num_candidates])))
                candidates = torch.stack(anchors[: step.num_candidates], dim=1)  # [B, N, H]
                x = candidates[torch.arange(batch_size, device=x.device), token]
            elif isinstance(step, Subset):
                anchors.append(hidden)
                projected.append(self.anchor_projection(hidden))
                if step.num_candidates == 0:
                    x = start
                    continue
                # The logits of taking and of leaving a candidate are q and -q, so P(take) = sigmoid(2q).
                scores = self._attend(hidden, projected[: step.num_candidates])
                both = self._limit(torch.stack([-scores, scores], dim=-1))  # [B, N, 2]
                skip_probs.append(both.softmax(dim=-1)[..., 1])
                taken = decide(both)  # [B, N]
                candidates = torch.stack(anchors[: step.num_candidates], dim=1)
                total = (taken[:, :, None] * candidates).sum(1)
                x = total / (1 + taken.sum(1, keepdim=True))
            else:
                assert isinstance(step, Anchor)
                anchors.append(hidden)
                projected.append(self.anchor_projection(hidden))
                x = start
        return Sample(torch.cat(tokens, dim=1), log_prob, entropy, tuple(skip_probs))

    def _attend(self, hidden: Tensor, projected: list[Tensor]) -> Tensor:
        """v · tanh(W1 · anchor + W2 · h) for every anchor: [B, N]."""
        keys = torch.stack(projected, dim=1) + self.query_projection(hidden)[:, None]
        scores: Tensor = self.attention(keys.tanh())
        return scores.squeeze(-1)

    def _choice_logits(self, hidden: Tensor, choice: Choice) -> Tensor:
        logits = self._limit(self.classifiers[_table(choice)](hidden))
        logits = logits / self._config.operation_tanh_divisor
        return logits + self.get_buffer(self._biased[choice]) if choice in self._biased else logits

    def _limit(self, logits: Tensor) -> Tensor:
        return self._config.tanh_constant * torch.tanh(logits / self._config.temperature)


def _values(named: Mapping[str, float], choice: Choice) -> Tensor:
    """The value of each option of a choice, 0 for an option that is not in `named`: [K]."""
    return torch.tensor([float(named.get(option, 0.0)) for option in choice.options])


def _table(choice: Choice) -> str:
    """The name under which choices between the same options share weights."""
    return "-".join(choice.options)
