"""Phrases of free text: what counts, what does not, and that repetition does not pay."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.rewards import search

KINDS = ("backtracks", "checks", "alternatives")
COUNTS = (*KINDS, "search_steps")


def of(text):
    found = search.count_steps(text)
    return tuple(int(found[kind]) for kind in KINDS)


@pytest.mark.parametrize(
    ("text", "backtracks", "checks", "alternatives"),
    [
        ("Try 3 + 5 = 8. Wait, that is wrong. Let me check 3 * 5.", 1, 1, 0),
        ("So x = 4. WAIT, x must be odd.", 1, 0, 0),
        ("So x = 4.\n**Wait**, x must be odd.", 1, 0, 0),
        ("x = 4, but wait, x must be odd.", 1, 0, 0),
        ("x = 4 \u2014 wait, x must be odd.", 1, 0, 0),
        ("We get 9. No, that\u2019s wrong because 9 is not prime.", 1, 0, 0),
        ("We get 9. This doesn\u2019t work for n = 2.", 1, 0, 0),
        ("Let\u2019s start over with the second equation.", 1, 0, 0),
        ("Hmm, this approach is a dead end for odd n.", 1, 0, 0),
        ("The total is 50, which can\u2019t be right.", 1, 0, 0),
        ("I made a small mistake in line two.", 1, 0, 0),
        ("Let me double-check the sum 3 + 4.", 0, 1, 0),
        ("To verify, 3 * 4 = 12.", 0, 1, 0),
        ("I'll just verify the last step.", 0, 1, 0),
        ("The root is 3. Is that correct? Yes.", 0, 1, 0),
        ("Plugging x back into the equation gives 7 = 7.", 0, 1, 0),
        ("Alternatively, use the other identity.", 0, 0, 1),
        ("On the other hand, the second case gives 5.", 0, 0, 1),
        ("Another approach is to count pairs.", 0, 0, 1),
        ("What if n is even?", 0, 0, 1),
        ("Instead, we can factor the left side.", 0, 0, 1),
        ("", 0, 0, 0),
        ("Adding 3 and 4 gives 7. The answer is 7.", 0, 0, 0),
        ("Tom had to wait 5 minutes for the bus.", 0, 0, 0),
        ("Wait for the bus took 5 minutes.", 0, 0, 0),
        ("The 5 long-wait days are counted.", 0, 0, 0),
        ("The waiter wrote a check for $5.", 0, 0, 0),
        ("He wants tea instead of coffee.", 0, 0, 0),
        ("A mistaken checkbook, a rewait, a recheckout.", 0, 0, 0),
    ],
)
def test_phrases(text, backtracks, checks, alternatives):
    assert of(text) == (backtracks, checks, alternatives)
    assert search.count_steps(text)["search_steps"] == backtracks + checks + alternatives


def test_a_sentence_counts_once_for_a_kind():
    assert of("Wait, that is wrong, this doesn't work, let me start over with seven apples.") == (1, 0, 0)
    assert of("Wait, let me check the sum of seven apples.") == (1, 1, 0)


@pytest.mark.parametrize(
    "phrase",
    [
        "Wait. ",
        "Wait, that is wrong. ",
        "Let me check. ",
        "Alternatively, ",
        "wait\n",
        "Wait, let me check the sum again. ",
        "Alternatively, count the pairs. Wait, that is wrong. ",
    ],
)
def test_a_phrase_a_hundred_times_is_one_step_of_its_kind(phrase):
    assert max(of("The sum is seven. " + phrase * 100)) <= 1


def test_saying_the_same_with_one_word_changed_does_not_pay_and_a_new_thought_does():
    base = "wait, the second equation gives seven apples and three pears for every child in the yard"
    assert of(f"{base}. {base} too. {base} now.") == (1, 0, 0)
    assert of(f"{base}. Wait, five is not prime.") == (2, 0, 0)


def test_there_is_a_cap():
    assert of(" ".join(f"Wait, a{i} b{i} c{i} differ." for i in range(200))) == (32, 0, 0)


SENTENCES = st.lists(
    st.sampled_from(
        [
            "We add 3 and 4.",
            "Wait, 3 is odd.",
            "Wait.",
            "Let me check the sum.",
            "Alternatively, count pairs.",
            "What if x is 5?",
            "That is wrong.",
            "So 7 apples remain.",
            "Let me verify 3 * 4 = 12.",
            "No, this is wrong.",
        ]
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(SENTENCES, SENTENCES)
def test_more_text_never_lowers_a_count(begin, rest):
    before, after = search.count_steps(" ".join(begin)), search.count_steps(" ".join([*begin, *rest]))
    assert all(before[kind] <= after[kind] for kind in COUNTS)


@settings(max_examples=30, deadline=None)
@given(SENTENCES, st.integers(2, 20))
def test_saying_everything_again_adds_nothing_but_at_the_seam(begin, times):
    text = " ".join(begin)
    twice, often = search.count_steps(f"{text} {text}"), search.count_steps(" ".join([text] * times))
    assert all(often[kind] <= twice[kind] for kind in COUNTS)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_finite_counts(text):
    found = search.count_steps(text)
    assert set(found) == set(COUNTS)
    assert all(0 <= found[kind] <= 32 for kind in KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "wait. " * 50_000,
        "!" * 300_000,
        "wait" + "," * 300_000,
        "use " * 75_000 + "instead",
        "let me " * 40_000 + "check",
        "wait\n" * 60_000,
        " ".join(f"wait, a{i} a{i + 1} a{i + 2}." for i in range(20_000)),
    ],
)
def test_hostile_text_costs_no_more_than_its_length(text):
    """Eight times the text: eight times the CPU time where the cost is linear, 64 times where it is quadratic."""

    def cpu_s(part):
        taken_s = []
        for _ in range(3):
            begin_s = time.process_time()
            search.count_steps(part)
            taken_s.append(time.process_time() - begin_s)
        return min(taken_s)

    text = text[: search.MAX_CHARS]
    assert cpu_s(text) < 24 * cpu_s(text[: len(text) // 8]) + 0.01


def test_counts_join_a_verdicts_parts_and_the_verifiers_own_stay():
    parts = search.with_counts("math/2", "", "Wait, 3 is odd. Let me check 5.", "7", {"correct": 1.0, "checks": 9.0})
    assert parts == {"correct": 1.0, "backtracks": 1.0, "checks": 9.0, "alternatives": 0.0, "search_steps": 2.0}


def test_for_a_puzzle_the_grammar_decides():
    prompt, response = "1 1 3 4 -> 7 <think>", "x x x wait, 1 is odd. </think> * * +"
    assert search.with_counts("ops/1", prompt, response, "7", {"correct": 1.0, "search_steps": 3.0}) == {
        "correct": 1.0,
        "backtracks": 0.0,
        "checks": 0.0,
        "alternatives": 0.0,
        "search_steps": 0.0,
    }
