"""The baseline for a recurrent cell: torch's LSTM with tied weights and about as many parameters, trained alike."""

# T time steps, B batch, H hidden size, V vocabulary

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from foundation.seeds import stream_seed
from searcher.arch.spec import Spec
from searcher.arch.tasks import LanguageModelling
from searcher.nn.complexity import complexity_of
from searcher.nn.kernels.tied_softmax import negative_log_likelihood
from searcher.nn.recurrent import Dropout, Scores, draw_mask


class LstmNetwork(nn.Module):
    """Embedding, one LSTM layer, and a softmax that shares the embedding's weights, like `RecurrentNetwork`.

    The state [B, 2H] is the hidden state followed by the cell state. There is no state dropout, since torch's LSTM does
    not expose the inputs of its matrices. Matrix products are in autocast's dtype, as in a cell.
    """

    def __init__(self, hidden_size: int, *, vocabulary_size: int, dropout: Dropout, weight_range: float) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, hidden_size))
        self.lstm = nn.LSTM(hidden_size, hidden_size)
        self._dropout = dropout
        self._weight_range = weight_range

    def initialise(self, generator: torch.Generator) -> None:
        """Initialises the embedding as `RecurrentNetwork` does, and the LSTM uniformly in ± 1/√H, torch's default."""
        nn.init.uniform_(self.embedding, -self._weight_range, self._weight_range, generator=generator)
        limit = 1 / math.sqrt(self.lstm.hidden_size)
        for parameter in self.lstm.parameters():
            nn.init.uniform_(parameter, -limit, limit, generator=generator)

    def forward(self, tokens: Tensor, targets: Tensor, state: Tensor | None) -> Scores:
        """Read a window. Args: tokens, targets: int64 [T, B]. state: [B, 2H]; None starts from zero."""
        device = tokens.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with torch.autocast(device, enabled=False):
            batch_size, hidden = tokens.shape[1], self.lstm.hidden_size
            state = self.embedding.new_zeros(batch_size, 2 * hidden) if state is None else state
            x = functional.embedding(tokens, self.embedding)
            if self.training:
                x = x * draw_mask(self._dropout.embedding, len(self.embedding), 1, like=x)[tokens]
                x = x * draw_mask(self._dropout.input, batch_size, hidden, like=x)
            before = tuple(half.contiguous()[None] for half in state.chunk(2, dim=1))
            with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
                states, after = self.lstm(x, before)
            states, after = states.float(), tuple(part.float() for part in after)
            outputs = states
            if self.training:
                outputs = states * draw_mask(self._dropout.output, batch_size, hidden, like=states)
            nll = negative_log_likelihood(outputs.flatten(0, 1), self.embedding, targets.flatten(), dtype=dtype)
        return Scores(nll.view_as(targets), outputs, states, torch.cat(after, dim=2)[0])


def build_lstm(spec: Spec, *, seed: int, dropout: Dropout | None = None, weight_range: float = 0.04) -> LstmNetwork:
    """The LSTM nearest in parameters to the network of a spec for text, with initial weights."""
    assert isinstance(spec.task, LanguageModelling)
    size = complexity_of(spec).total.parameters
    vocabulary_size = spec.task.vocabulary_size
    network = LstmNetwork(
        equal_width(size, vocabulary_size=vocabulary_size),
        vocabulary_size=vocabulary_size,
        dropout=dropout or Dropout(),
        weight_range=weight_range,
    )
    network.initialise(torch.Generator().manual_seed(stream_seed(seed, "weights")))
    return network


def equal_width(num_parameters: int, *, vocabulary_size: int) -> int:
    """The hidden size at which the LSTM's V·H + 8H² + 8H parameters are nearest to `num_parameters`."""
    linear = vocabulary_size + 8
    return max(1, round((math.sqrt(linear**2 + 32 * num_parameters) - linear) / 16))
