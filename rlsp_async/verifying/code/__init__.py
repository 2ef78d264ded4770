"""Verifier `code`: whether Python code passes its tests, which the code never sees.

verifier        the options, the order of the steps, the verdict
forms           the forms in which reference answers hold tests
unit_tests      reading tests that are Python
python_tests    running them, one by one
pytest_names    what such tests find as pytest
cases           tests that are data: of programs, of calls, of stateful classes
comparing       whether an output or a result is the expected one
extract         the code in a response
fences          the blocks of code in a text
preamble        names that code may use without importing them
library         the modules that code may import
remote          the objects of the answer, as the tests see them
values          values as data
streams         standard input and output of a program in the runner
runner          the confined process in which the code of the response runs
"""

from rlsp_async.verifying.code.verifier import (
    JOINS_ANSWERS,
    LANE,
    READS_FILES,
    VERSION,
    CodeConfig,
    CodeVerifier,
    Config,
    load,
)

__all__ = ["JOINS_ANSWERS", "LANE", "READS_FILES", "VERSION", "CodeConfig", "CodeVerifier", "Config", "load"]
