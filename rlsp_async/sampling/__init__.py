"""The sampler process: prompts become groups of rollouts, while the weights of its engine are swapped.

conversation.py     rollouts with an environment: a request a turn, observations appended
sampler.py          Sampler: encodes a prompt, samples its rollouts, loads and checks weights, restarts a dead engine
engine.py           the interface of an engine: completions, weights, scores
engines.py          which engine a run takes
check.py            does an engine compute with the weights that were published: sums of its parameters, and the probe
pulling.py          how a version reaches it: a file, or a transfer over a channel
meter.py            counts of what a sampler did since its last heartbeat
torch_engine.py     the torch engine: one thread that decodes, for small models and machines without vLLM
torch_apart.py      its groups that decode apart, so that a run is the same bits each time
torch_batch.py      its batch: the rows that decode together, and their KV cache
torch_model.py      its model: Llama and Qwen decoders over fused weights
vllm_engine.py      the vLLM engine
vllm_extension.py   what runs inside vLLM's worker process: weights from a file
vllm_lora.py        adapters in vLLM: one, which every request carries
vllm_settings.py    environment and arguments with which vLLM runs
scripted.py         an engine without a model, for tests

Only `vllm_*.py` import vllm. The tokenizer is in `rlsp_async.tokens`, the transport of weights in `rlsp_async.weights`.
"""
