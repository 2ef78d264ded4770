"""The names that `expression.py` knows, LaTeX and plain alike."""

from __future__ import annotations

FUNCTIONS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "asin", "acos", "atan",
                       "sinh", "cosh", "tanh", "ln", "log", "lg", "exp", "sqrt", "abs", "floor", "ceil", "max", "min",
                       "cbrt"})
CONSTANTS = {"pi": "pi", "infty": "infinity", "inf": "infinity", "infinity": "infinity", "oo": "infinity"}
GREEK = frozenset({"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda",
                   "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta",
                   "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "angle", "triangle"})
