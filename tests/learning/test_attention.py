"""A packed row has the logits and gradients of each sequence alone, for common models."""

import numpy as np
import pytest
import torch

from rlsp_async.learning import attention
from tests.learning.small import VOCABULARY, tiny_config

LENGTHS = [17, 16, 9, 3, 1]


def models(kind, tied, first=None):
    from transformers import AutoModelForCausalLM

    attention.register()
    torch.manual_seed(1)
    ours = AutoModelForCausalLM.from_config(tiny_config(kind, tied), attn_implementation=attention.NAME)
    theirs = AutoModelForCausalLM.from_config(tiny_config(kind, tied), attn_implementation="eager")
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("qwen2", True), ("qwen2", False)])
def test_packed_logits_and_gradients_are_those_of_the_padded_model(kind, tied):
    ours, theirs = models(kind, tied)
    rows = [torch.randint(0, VOCABULARY, (n,)) for n in LENGTHS]
    cu_seqlens = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int32)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    packed = ours(
        input_ids=torch.cat(rows)[None],
        position_ids=positions[None],
        use_cache=False,
        packing=attention.Spans.of(cu_seqlens),
    ).logits[0]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in LENGTHS], batch_first=True)
    expected = theirs(input_ids=padded, attention_mask=mask, use_cache=False).logits[mask.bool()]
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    (packed * weight).sum().backward()
    (expected * weight).sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-4, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_cuts_put_similar_lengths_together():
    assert attention.cut_blocks([100] * 20 + [10] * 200) == [20, 220]
    assert attention.cut_blocks([10, 9, 8]) == [3]
    assert attention.cut_blocks([7]) == [1]


def test_cuts_are_the_cheapest_and_of_equal_ones_those_with_the_shortest_last_block():
    generator = np.random.default_rng(0)
    for num, most in ((1, 5), (7, 3), (40, 900), (60, 9000), (90, 60)):
        lengths = [int(n) for n in generator.integers(1, most, num)]
        best, previous = [0] + [1 << 60] * num, [0] * (num + 1)
        for last in range(1, num + 1):
            for first in range(last - 1, -1, -1):
                cost = best[first] + (last - first) * max(lengths[first:last]) + attention._BLOCK_COST_TOKENS
                if cost < best[last]:
                    best[last], previous[last] = cost, first
        ends = [num]
        while previous[ends[-1]] > 0:
            ends.append(previous[ends[-1]])
        assert attention.cut_blocks(lengths) == ends[::-1]


def test_spans_by_hand():
    spans = attention.Spans.of(np.array([0, 3, 4], dtype=np.int32)).blocks
    assert spans.shapes == [(2, 3)]
    assert spans.take_P.tolist() == [0, 1, 2, 3, 0, 0]
    assert spans.empty.tolist() == [4, 5]
    assert spans.back_T.tolist() == [0, 1, 2, 3]


def test_the_order_of_sequences_does_not_matter():
    ours, _ = models("llama", True)
    a, b = torch.randint(0, VOCABULARY, (5,)), torch.randint(0, VOCABULARY, (8,))

    def run(*rows):
        cu_seqlens = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        positions = torch.cat([torch.arange(len(r)) for r in rows])
        return ours(
            input_ids=torch.cat(rows)[None],
            position_ids=positions[None],
            use_cache=False,
            packing=attention.Spans.of(cu_seqlens),
        ).logits[0]

    torch.testing.assert_close(run(a, b)[:5], run(b, a)[8:], atol=1e-6, rtol=1e-5)


def test_attention_without_spans_is_refused():
    ours, _ = models("llama", True)
    with pytest.raises(ValueError, match="packing"):
        ours(input_ids=torch.ones(1, 3, dtype=torch.int64), use_cache=False)
