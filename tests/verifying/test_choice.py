"""The verifier `choice`: what counts as committing to an option."""

import pytest

from rlsp_async.errors import ConfigError, DataError
from rlsp_async.verifying.base import load_verifier
from tests.verifying.growth import grows_linearly

PROMPT = "Which colour has the sky?\nA) red\nB) blue\nC. dark green\n(D) A, B or C"
LETTERS = load_verifier("choice")
WORDS = load_verifier("choice", {"labels": ["yes", "no", "maybe"]})


@pytest.mark.parametrize(
    "response",
    [
        "<answer>B</answer>",
        "<answer>(B)</answer>",
        "<answer> B) blue </answer>",
        "<answer>B, because C is wrong</answer>",
        "<answer>\nThe answer is B\n</answer>",
        "\\boxed{B}",
        "\\boxed{\\text{(B)}}",
        "\\boxed{\\text{B) blue}}",
        "\\boxed{B} and again \\boxed{B}",
        "\\boxed{A} no wait \\boxed{B}",
        "We get \\boxed{E = mc^2}. Answer: B",
        "\\boxed{3}\nThe answer is B",
        "The answer is B.",
        "The answer is (B) because of Rayleigh.",
        "The answer is (B) because (A) and (C) are wrong",
        "Answer: B because A is too small",
        "The answer is B since A fails",
        "The answer is not A but B",
        "The answer is not A, it is B.",
        "The answer is option (B), not option (C).",
        "the answer is **B**",
        "#### B",
        "B",
        "B.",
        "(B)",
        "B)",
        "b",
        "**B**",
        "B, not C",
        "B, as C is too large",
        "So, B.",
        "Hence B.",
        "I choose B",
        "I would go with B.",
        "My pick is B",
        "Only B works.",
        "B fits best",
        "Option B is right, because C is wrong",
        "C is wrong. B is right.",
        "Not C. B.",
        "Neither A nor C. So B.",
        "We can rule out A and C, so B",
        "Eliminate A. Eliminate C. Choose B.",
        "It can't be A. It isn't C. It's B.",
        "The answer must be (B). (A) is impossible, and (C) contradicts the law.",
        "(B) fits; (A) does not.",
        "A seems right but B is better",
        "I think of A) first.\n\nFinal choice: option B",
        "**B) blue**",
        "The answer is blue.",
        "<answer>Blue</answer>",
        "A) is wrong, C. is wrong.\nB) is what remains",
        "A) red\nB) blue\nC) dark green\nB is right",
        "<think>The answer is C</think> (B)",
        "[THINK]The answer is C[/THINK] (B)",
        "Answer: B",
        "Answer: A\nAnswer: B",
        "Answer:\n\nB",
        "### Answer\nB",
        "Option B",
        "It could be (A), no: (B)",
        "The answer is A. Wait, actually it is (B).",
        "The answer is B, blue.",
        "Answer: $B$",
        "The best answer is \u201cB\u201d",
        "Answer: \uff22",
        "\u041e\u0442\u0432\u0435\u0442: \u0412",
        "\u7b54\u6848\uff1aB",
        "\u3010\u7b54\u6848\u3011B",
        "\u56e0\u6b64\u9009B",
        "\u6545\u9009\uff1aB",
        "B\u9879\u6b63\u786e",
        "\u6b63\u89e3\u306f B \u3067\u3059",
        "\uc815\ub2f5\uc740 B\uc785\ub2c8\ub2e4",
        "La r\u00e9ponse est B.",
        "Die richtige Antwort ist B.",
        "La respuesta correcta es B",
        "A resposta correta \u00e9 B.",
        "Risposta: B",
        "\u0110\u00e1p \u00e1n l\u00e0 B",
    ],
)
def test_what_commits_to_b(response: str) -> None:
    verdict = LETTERS.judge(PROMPT, response, "B")
    assert (verdict.status, verdict.extracted) == ("correct", "B")
    assert LETTERS.judge(PROMPT, response, "C").status == "wrong"
    assert LETTERS.judge(PROMPT, response, "blue").status == "correct"


@pytest.mark.parametrize(
    "response",
    [
        "",
        "I do not know.",
        "A sky is a thing.",
        "A blue sky is the answer.",
        "Better ask a physicist. I am A Person.",
        "I think a lot.",
        "<answer>purple</answer>",
        "<answer>The blue</answer>",
        "The answer is a colour",
        "Answer: A bit of everything",
        "Answer: I don't know",
        "A is wrong.",
        "Neither A nor C.",
        "A) red\nB) blue\nC) dark green\nSo it is hard.",
        "P(A) = 3",
        "f(A) and A + 1",
        "<think>(A)",
        "\\boxed{A",
    ],
)
def test_what_commits_to_nothing(response: str) -> None:
    assert LETTERS.judge(PROMPT, response, "A").status == "unparsable"


@pytest.mark.parametrize(
    "response",
    [
        "Answer: (A) and maybe (C)",
        "The answer is A or C",
        "Either A or C",
        "Answer: A/B/C",
        "\\boxed{A} \\boxed{C}",
        "\\boxed{A} or \\boxed{C}",
        "\\boxed{A}\nThe answer is C",
        "\\boxed{C}\nThe answer is A",
        "A, B and C are right",
        "The answer is A) blue",
        "<answer>A, C</answer>",
    ],
)
def test_more_than_one_answer_is_wrong(response: str) -> None:
    assert LETTERS.judge(PROMPT, response, "A").status == "wrong"
    assert LETTERS.judge(PROMPT, response, "C").status == "wrong"


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("<answer>A and C</answer>", "correct"),
        ("The answer is C, A.", "correct"),
        ("\\boxed{AC}", "correct"),
        ("Options A and C", "correct"),
        ("\\boxed{A} and \\boxed{C}", "correct"),
        ("<answer>A</answer>", "wrong"),
        ("<answer>A, B, C</answer>", "wrong"),
    ],
)
@pytest.mark.parametrize("gold", ["A, C", "AC", "C and A", "(A), (C)"])
def test_several_labels_are_a_set(response: str, status: str, gold: str) -> None:
    assert LETTERS.judge("Which two?", response, gold).status == status


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("The answer is (3).", "3"),
        ("Option 3 is right", "3"),
        ("<answer>12</answer>", "12"),
        ("No doubt: yes", "yes"),
        ("The answer is no, since yes would be absurd", "no"),
        ("The label is **Entailment**", "entailment"),
        ("It is false.", "False"),
        ("Answer: K", "K"),
        ("\u7b54\u6848\uff1a\u2161", "\u2161"),
        ("Answer: III", "III"),
        ("The answer is B", "Option B"),
        ("B", "B) blue"),
        ("B", "B."),
        ("B", "\\text{(B)}"),
    ],
)
def test_labels_are_of_the_kind_of_the_reference_answer(response: str, gold: str) -> None:
    assert LETTERS.judge("", response, gold).status == "correct"


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("The answer is (2).", "3"),
        ("yes and no", "yes"),
        ("The answer is yes", "no"),
        ("It is true.", "False"),
        ("(J)", "K"),
    ],
)
def test_other_labels_of_the_kind_are_wrong(response: str, gold: str) -> None:
    assert LETTERS.judge("", response, gold).status == "wrong"


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        ("Yes, it is.", "yes"),
        ("<answer>No</answer>", "no"),
        ("First I said no. Then: yes", "yes"),
        ("YES", "yes"),
        ("The answer is maybe.", "maybe"),
        ("No doubt: yes", "yes"),
        ("I know nothing", ""),
        ("yesterday", ""),
    ],
)
def test_labels_may_be_words(response: str, extracted: str) -> None:
    verdict = WORDS.judge("Is it?", response, "yes")
    assert verdict.extracted == extracted
    assert verdict.status == {"yes": "correct", "": "unparsable"}.get(extracted, "wrong")


def test_a_text_that_stands_twice_names_no_option() -> None:
    assert LETTERS.judge("A) same\nB) same", "<answer>same</answer>", "A").status == "unparsable"


def test_options_on_one_line() -> None:
    assert LETTERS.judge("Pick: (A) red (B) blue (C) green", "<answer>green</answer>", "C").status == "correct"


def test_bad_data_and_bad_options() -> None:
    with pytest.raises(DataError, match="'zebra' is neither a label .A, B"):
        LETTERS.judge(PROMPT, "B", "zebra")
    with pytest.raises(ConfigError, match="labels must be two or more"):
        load_verifier("choice", {"labels": ["A"]})


def test_marks_of_thoughts_are_an_option() -> None:
    marks = load_verifier("choice", {"thinking": [["{{", "}}"]]})
    assert marks.judge(PROMPT, "{{(A)}} (B)", "B").status == "correct"
    assert marks.judge(PROMPT, "{{(B)", "B").status == "unparsable"


def test_every_label_is_its_own_gold_in_every_wrapper_and_no_other() -> None:
    wrappers = (
        "So it is ({}).",
        "Answer: {}",
        "\\boxed{{{}}}",
        "**{}**",
        "I choose {}.",
        "#### {}",
        "<answer>{}</answer>",
        "{} is right, not Q.",
    )
    for label in "ABCDEFGHJK":
        for wrapper in wrappers:
            response = wrapper.format(label)
            assert LETTERS.judge("", response, label).status == "correct", response
            assert LETTERS.judge("", response, "Z").status == "wrong", response


@pytest.mark.parametrize(
    "piece", ["(A) ", "A or ", "not A ", "A\n", "A) x\n", "no ", "**A**", "because ", " ", "$", "\\[", ".", "- "]
)
def test_many_mentions_take_linear_time(piece: str) -> None:
    assert grows_linearly(lambda num: LETTERS.judge(PROMPT, piece * (num // len(piece)), "B"), 2_000)
