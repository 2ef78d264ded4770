"""Responses that want to hang, crash, inflate, inject or fool the `math` verifier. None of them answers 7."""

from __future__ import annotations

MARKER = "/tmp/rlsp-hostile-marker"


def _box(text: str) -> str:
    return f"\\boxed{{{text}}}"


POWERS = [
    "9^{9^{9^9}}", "9**9**9**9", "2^{99999999}", "(((1+1)^{99})^{99})^{99}", "10^{10^{10}}", "(10^8)!", "100000000!", "((5!)!)!",
    "1e999999999", "1e-999999999", "e^{e^{e^{e^e}}}", "\\exp(10^9)", "\\binom{10^9}{10^8}", "0^{-1}", "1/0", "0/0", "\\infty-\\infty",
    "\\infty^{\\infty}", "i^{10^{300}}", "\\sin(10^{10^5})", "\\tan(10^{300})", "\\log(0)", "\\sqrt[0]{2}", "\\sqrt[10^9]{2}",
    "x^{999}" * 100, "(x+1)^{9999}", "(x+y+z)^{500}", "(x+1)^{x^{x^{x}}}", "\\lfloor 10^{400} \\pi \\rfloor",
    "\\sum_{k=1}^{10^9} k", "\\prod_{k=1}^{10^9} k", "\\int_0^1 e^{x^2} dx", "\\lim_{x\\to 0} \\frac{1}{x}",
]  # fmt: skip
SHAPES = [
    "{" * 500 + "1" + "}" * 500, "(" * 900 + "1" + ")" * 900, "(" * 3000, "\\frac{1}{" * 300 + "1" + "}" * 300,
    "\\sqrt{" * 200 + "2" + "}" * 200, "-" * 900 + "7" + "7", "x+" * 1900 + "x", "1," * 450 + "1", "\\pm 1" * 180, "\\pm 1 " * 12,
    "\\begin{pmatrix}" * 50, "\\begin{pmatrix}" + "1&" * 400 + "1\\end{pmatrix}", "[" * 80 + "1" + "]" * 80, "|" * 900,
    "1" * 3900, "0." + "1" * 3900, "7" * 900, "\\left" * 300, "\\" * 999, "^" * 900, "_{1}" * 200, "1" + "!" * 900, "%" * 500,
    "\\overline{" * 100, "\\text{" * 300, "x=" * 400 + "8", "1<" * 400 + "2", "\\cup" * 300, "1 or " * 190 + "1",
]  # fmt: skip
INJECTIONS = [
    f"__import__('os').system('touch {MARKER}')", f"exec(\"open('{MARKER}','w')\")", f"eval('open(\"{MARKER}\",\"w\")')",
    f"().__class__.__base__.__subclasses__()[0]('{MARKER}')", f"lambda: open('{MARKER}', 'w')", f"$(touch {MARKER})",
    f"`touch {MARKER}`", f"\\write18{{touch {MARKER}}}", f"\\input{{{MARKER}}}", "\\def\\x{\\x\\x}\\x",
    "sympify('7')", "answer", "gold", "{answer}", "%(answer)s", "${gold}", "\\gold", "globals()['gold']",
    '{"status": "correct"}', "</answer><answer>", "Verdict(status='correct')",
]  # fmt: skip
WHOLE = [
    "", " " * 1_000_000, "\\boxed{" * 100_000, "<answer>" * 100_000, "$" * 1_000_000, "1," * 500_000, "a" * 1_000_000, "\n" * 1_000_000,
    "answer is " * 100_000, "****" * 250_000, "\\[" * 400_000, "\\(" * 400_000, "\x00" * 1_000_000, "\x00\x01\x02\\boxed{8\x00}",
    "\u202e\\boxed{8}", "\ufdfa" * 100_000, "a\u0301" * 300_000, "\U0001d7ff" * 200_000, "<think>\\boxed{7}</think>", "<think>" * 100_000 + "8",
    "".join(f"\\boxed{{{n}}} " for n in range(10_000)), "0123456789" * 100_000, "- " * 500_000, "\\text{" * 100_000, "#### " * 200_000,
]  # fmt: skip
RESPONSES = [*map(_box, [*POWERS, *SHAPES, *INJECTIONS]), *WHOLE]
