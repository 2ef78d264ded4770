"""Fully asynchronous, off-policy reinforcement-learning post-training of reasoning models.

Importing the package loads neither torch, vllm nor zmq.
"""

__version__ = "0.1.0"
