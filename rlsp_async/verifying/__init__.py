"""Verifiers: whether a response answers its prompt, judged in processes that may be killed.

In the order in which one meets them:

    base          what a verifier is, how one is loaded by its name, and how verdicts are made
    pool          `VerifierPool`: groups of responses in, verdicts out; owns the processes below
    fork_server   the process that loads the verifier once and forks one checker process after another
    sandbox       what a checker process is forbidden to do, asked of the Linux kernel
    seccomp       the allow-list of system calls, and the filter that the kernel runs for it
    attempts      the ways out of the sandbox that are tried at the start
    extract       where in a response the answer stands; shared by the verifiers; with the next four
    thoughts      what a response says outside of its thoughts
    boxes         the boxes of a response, and which of them belong together
    sentences     the sentence that gives the answer, and which of its values is meant
    values        the values in running text, made of its runs (`runs`), made of its atoms (`atoms`)
    labels        which options of a multiple-choice question a text names
    words         words made comparable

The verifiers themselves, each named as in `task.verifier`. Three are folders:

    math          numbers and mathematical expressions
    code          Python functions, run against unit tests
    judge         a language model that grades by a rubric

and the others are one file each:

    exact         words                             countdown       an expression that gives a target
    regex         a regular expression              ops             the operator puzzle
    choice        multiple choice                   addition        column addition
    format        tags and patterns                 reasoning_gym   the tasks of reasoning-gym
    length        number of words or characters     executable      a program of the user's own
    abstain       credit for "I don't know"       claim           what the run's environment claims
"""
