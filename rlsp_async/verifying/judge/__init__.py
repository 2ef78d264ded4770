"""Verifier `judge`: a language model behind an OpenAI-compatible address grades a response by a rubric.

verifier   the options, retries, the verdict
rubric     what the judge is asked
reply      how its reply is read
client     one HTTP request that ends by its deadline
"""

from rlsp_async.verifying.judge.verifier import LANE, VERSION, Config, JudgeConfig, JudgeVerifier, load

__all__ = ["LANE", "VERSION", "Config", "JudgeConfig", "JudgeVerifier", "load"]
