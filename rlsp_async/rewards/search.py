"""How much a response searches: backtracks, checks and alternatives, counted where the text is (the verifier).

    count_steps("Try 3 + 5 = 8. Wait, that is wrong. Let me check 3 * 5.")
    -> {"backtracks": 1.0, "checks": 1.0, "alternatives": 0.0, "search_steps": 2.0}

The phrases are English, listed below, at word boundaries, in any case, with straight or curly apostrophes. A sentence
counts once for each of the three kinds, and only when it says something new: its words without the phrase (and, when
fewer than MIN_WORDS are left, the words of the sentence before) must differ from those of every sentence counted
before. So "wait" a hundred times counts once. Appending sentences never lowers a count; no count goes above
MAX_PER_KIND.

Puzzles whose attempts have a grammar are counted by `grammar.py` instead.
"""

from __future__ import annotations

import re

from rlsp_async.rewards import grammar

MAX_CHARS = 200_000
"""Number of characters of a response that are read."""
MAX_PER_KIND = 32
"""Largest count of a kind."""
MAX_LOOKED_AT = 400
"""Number of sentences with a phrase of one kind that are compared."""
MIN_WORDS = 3
"""Number of words below which the sentence before is compared too."""
MAX_WORDS = 64
"""Number of words of a sentence that are compared."""
SAME = 0.8
"""Jaccard similarity of two sentences' words from which on they count as the same."""

_IS = r"(?: is|'s| was|'re| are| looks| seems)(?: just| clearly| still| also)?"
_WE = r"(?:let me|let's|let us|i will|i'll|i should|i need to|we can|we should|we need to|i can|i must)"
_MADE = r"(?:i made|i've made|there(?: is|'s)|that(?: is|'s| was))"
_AGAIN = r"(?: just| now| quickly| first| also| at least)?"
PATTERNS: dict[str, tuple[tuple[str, str], ...]] = {
    "backtracks": (
        # "wait" at the head of a clause; never "wait for the bus", "had to wait 5 minutes"
        (
            "wait",
            r"(?:^|[,:(*]|\s-)\W{0,3}(?:(?:but|oh|hmm|ah|no|ok|okay|so|and|actually)\W{1,3}){0,3}wait\b"
            r"(?!\s+(?:for|until|till|on|time|an?|another|\d))",
        ),
        ("wrong", rf"\b(?:that|this|it|which|something){_IS} wrong\b"),
        ("incorrect", rf"\b(?:that|this|it|which){_IS} incorrect\b"),
        ("not right", rf"\b(?:that|this|it|which){_IS} not(?: quite)? right\b"),
        ("n't right", r"\b(?:that|this|it|which) (?:isn't|wasn't)(?: quite)? right\b"),
        ("right", r"\b(?:that|this|it|which) (?:can't be|doesn't (?:look|seem))(?: quite)? right\b"),
        ("not correct", rf"\b(?:that|this|it|which){_IS} not correct\b"),
        ("n't work", r"\b(?:that|this|it|which) (?:doesn't|didn't|won't|wouldn't) work\b"),
        ("not work", r"\b(?:that|this|it|which) (?:does|did|will|would) not work\b"),
        ("mistake", rf"\b{_MADE} an? (?:\w+ )?mistake\b|\bmy mistake\b"),
        ("an error", rf"\b{_MADE} an error\b"),
        ("start over", r"\bstart over\b"),
        ("try again", rf"\b{_WE} try again\b|^\W*try again\b"),
        ("go back", rf"\b{_WE} go back\b|^\W*go back\b"),
        ("going back", r"\bgoing back\b"),
        ("backtrack", r"\bbacktrack(?:ing)?\b"),
        ("reconsider", r"\breconsider(?:ing)?\b"),
        ("rethink", r"\brethink(?:ing)?\b"),
        ("scratch that", r"\bscratch that\b"),
        ("on second thought", r"\bon second thoughts?\b"),
        ("dead end", r"\bdead end\b"),
    ),
    "checks": (
        ("check", rf"\b{_WE}{_AGAIN} (?:double[- ]|re-?)?check\b|^\W*(?:to|now|double[- ]|re-?)?\W?check(?:ing)?\b"),
        ("double", r"\bdouble[- ]check(?:ing|ed)?\b"),
        ("verify", rf"\b{_WE}{_AGAIN} verify\b|\bto verify\b|^\W*(?:now )?verify\b"),
        ("verifying", r"\bverifying\b"),
        ("confirm", rf"\b{_WE}{_AGAIN} confirm\b|\bto confirm\b"),
        ("sanity", r"\bsanity[- ]check\b"),
        ("make sure", rf"\b{_WE}{_AGAIN} make sure\b"),
        ("back in", r"\bplug(?:ging)? (?:\w+ ){0,4}back in(?:to)?\b"),
        ("correct?", r"\b(?:is|was) (?:that|this|it) correct\?"),
        ("right?", r"\b(?:is|was) (?:that|this|it) right\?"),
    ),
    "alternatives": (
        ("alternatively", r"\balternatively\b"),
        ("on the other hand", r"\bon the other hand\b"),
        ("another", r"\banother (?:way|approach|method|option|possibility|idea|route|strategy|attempt)\b"),
        ("different", r"\ba different (?:way|approach|method|option|idea|route|strategy)\b"),
        ("instead", r"^\W*instead,|\b(?:let me|let's|let us|try|use|consider) (?:[^,;]{1,40} )?instead$"),
        ("what if", r"\bwhat if\b"),
        ("maybe", r"^\W*maybe (?:i|we|it|there|the|try|instead)\b"),
        ("perhaps", r"^\W*perhaps (?:i|we|it|there|the|try|instead)\b"),
        ("could also", r"\b(?:i|we|one) could also\b"),
        ("can also", r"\b(?:i|we|one) can also\b"),
        ("try something", r"\btry something (?:else|different)\b"),
    ),
}
"""By kind: (text without which the pattern cannot match, pattern within one lower-case sentence)."""

_COMPILED = {
    kind: tuple((word, re.compile(pattern)) for word, pattern in patterns) for kind, patterns in PATTERNS.items()
}
_SPELLING = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "'",
        "\u02bc": "'",
        "\uff07": "'",
        "\u00b4": "'",
        "`": "'",
        "\u2014": "-",
        "\u2013": "-",
        "\u2010": "-",
        "\u2011": "-",
        "\u00a0": " ",
    }
)
_END = re.compile(r"(?<=[.!?\u3002])\s|[\n\r;]")
_WORD = re.compile(r"[^\W_]+")
Words = frozenset[str]


def count_steps(response: str) -> dict[str, float]:
    """Counts the search steps of free text.

    Args:
        response: the text; its first MAX_CHARS characters are read.

    Returns:
        "backtracks", "checks", "alternatives", and their sum "search_steps".
    """
    text = response[:MAX_CHARS].translate(_SPELLING).lower()
    present = {kind: [p for word, p in patterns if word in text] for kind, patterns in _COMPILED.items()}
    sentences = [s for s in (s.strip() for s in _END.split(text)) if s] if any(present.values()) else []
    counts = {kind: float(_count(sentences, patterns)) for kind, patterns in present.items()}
    return {**counts, "search_steps": sum(counts.values())}


def with_counts(verifier: str, prompt: str, response: str, answer: str, parts: dict[str, float]) -> dict[str, float]:
    """A verdict's parts together with the counts of its response.

    Args:
        verifier: name of the verifier with its version ("ops/1").
        prompt: text of the prompt.
        response: text of the response.
        answer: the task's answer.
        parts: the verifier's own parts.

    Returns:
        parts by name. Where the puzzle has a grammar, its counts replace the verifier's parts of the same names;
        elsewhere a part that the verifier itself reports stays.
    """
    by_grammar = grammar.count_attempts(verifier.partition("/")[0], prompt, response[:MAX_CHARS], answer)
    return {**count_steps(response), **parts} if by_grammar is None else {**parts, **by_grammar}


def _count(sentences: list[str], patterns: list[re.Pattern[str]]) -> int:
    """Number of sentences that match a pattern and say something that no counted sentence has said."""
    said: list[Words] = []
    num_looked_at = 0
    for number, sentence in enumerate(sentences if patterns else []):
        match = next((m for p in patterns if (m := p.search(sentence))), None)
        if match is None:
            continue
        num_looked_at += 1
        words = _context(sentences, number, patterns)
        if words and all(_similarity(words, other) < SAME for other in said):
            said.append(words)
        if len(said) == MAX_PER_KIND or num_looked_at == MAX_LOOKED_AT:
            break
    return len(said)


def _context(sentences: list[str], number: int, patterns: list[re.Pattern[str]]) -> Words:
    """The words by which a sentence is compared: its own, and those of the sentence before when it has few."""
    words = _words(sentences[number], patterns)
    if len(words) < MIN_WORDS and number:
        words |= _words(sentences[number - 1], patterns)
    return words


def _words(sentence: str, patterns: list[re.Pattern[str]]) -> Words:
    """The words of a sentence without its phrases."""
    for pattern in patterns:
        sentence = pattern.sub(" ", sentence)
    return frozenset(_WORD.findall(sentence)[:MAX_WORDS])


def _similarity(a: Words, b: Words) -> float:
    """Jaccard similarity."""
    return len(a & b) / len(a | b)
