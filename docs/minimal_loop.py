"""Reinforcement learning of a language model in one process and without abstraction: read this file from top to bottom.

    prompt -> rollouts -> verdicts -> rewards -> advantages -> loss -> weights -> prompt ...

Every step calls the functions that the services of a real run call, in the order in which a rollout meets them; only
the processes, the hub between them and the journal are left out. A Llama of 217 thousand random parameters first
imitates demonstrations of column addition by a careless teacher (supervised fine-tuning, SFT), then improves on its own
rollouts (GRPO, arXiv:2402.03300). The whole takes about a minute on two CPU cores:

    python docs/minimal_loop.py                                   # writes the model to ./minimal_loop/final
    python docs/minimal_loop.py --sft-steps 200 --rl-steps 5      # any setting: see --help

Shapes: B rollouts of a batch, N their response tokens end to end, R response tokens of one micro-batch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from rlsp_async.algos import grpo, maths, sft
from rlsp_async.algos.base import Algorithm, AlgorithmConfig, Rollouts, Tokens
from rlsp_async.config import ModelConfig, OptimizerConfig, RunConfig, StageConfig, TaskConfig
from rlsp_async.learning import pack
from rlsp_async.learning.optim import Updater
from rlsp_async.learning.policy import Policy, load_model
from rlsp_async.messages import Prompt
from rlsp_async.model import prepare_model
from rlsp_async.rewards import compose, explore
from rlsp_async.sampling.engine import GenerateSettings
from rlsp_async.sampling.torch_batch import DecodeBatch, DecodeRow
from rlsp_async.sampling.torch_model import TorchModel
from rlsp_async.tasks.base import load_task
from rlsp_async.tokens import decode_response, encode_prompt, encode_response, end_token
from rlsp_async.verifying.base import load_verifier

parser = argparse.ArgumentParser(description="SFT, then GRPO, on column addition, in one process.")
parser.add_argument("--out", type=Path, default=Path("minimal_loop"), help="directory of the model; made if absent")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--sft-steps", type=int, default=250, help="updates on demonstrations")
parser.add_argument("--rl-steps", type=int, default=32, help="batches of rollouts")
parser.add_argument("--prompts", type=int, default=32, help="prompts of a batch of rollouts")
parser.add_argument("--rollouts", type=int, default=8, help="rollouts of each prompt: one group")
parser.add_argument("--test-prompts", type=int, default=512, help="held-out prompts of an evaluation")
args = parser.parse_args()
torch.manual_seed(args.seed)
started = time.monotonic()

# --- the task, the verifier, the model and who samples from it -------------------------------------------------------

MAX_NEW_TOKENS, TOKENS_PER_MICROBATCH = 96, 8192
ALPHA, LENGTH_SCALE, REWARD_CLIP = 0.9, 2.0, 5.0

cfg = RunConfig(
    name="minimal_loop",
    seed=args.seed,
    task=TaskConfig(name="addition", options={"numbers": 2}),
    model=ModelConfig(),
    stages={"x": StageConfig()},
)
task = load_task(cfg.task, args.seed)  # a prompt is a function of seed, split and index
verifier = load_verifier(task.verifier)  # verdict on (prompt, response, answer)

prepare_model(cfg, args.out / "start")  # random weights and the task's tokenizer, as a Hugging Face directory
tokenizer = task.tokenizer()
policy = Policy(load_model(args.out / "start"))  # what is trained: log-probs of packed tokens, with gradient
decoder = TorchModel(args.out / "start", torch.float32, "cpu", window=512)  # what samples: weights of its own, a cache
rows = DecodeBatch(decoder, max_rows=512, seed=args.seed)  # the sequences that decode together


def publish(version: int) -> None:
    """The learner's weights become the sampler's. In a run a digest and a probe are checked on the way."""
    path = args.out / "weights.safetensors"
    save_file({name: p.detach().contiguous() for name, p in policy.policy_parameters()}, path)
    decoder.load(path)
    rows.version = version


# --- prompt -> rollouts ----------------------------------------------------------------------------------------------


@torch.no_grad()
def sample(prompts: list[Prompt], num_rollouts: int) -> list[DecodeRow]:
    """`num_rollouts` completions of each prompt, in the order of the prompts; each token with its log-prob."""
    settings = GenerateSettings(max_new_tokens=MAX_NEW_TOKENS, temperature=1.0, stop_ids=(end_token(tokenizer),))
    group = [tuple(encode_prompt(tokenizer, prompt).tolist()) for prompt in prompts]
    wanted = [DecodeRow(prompt_ids, settings) for prompt_ids in group for _ in range(num_rollouts)]
    waiting = list(wanted)
    while waiting or rows.live:
        if waiting and rows.num_free:
            rows.admit([waiting.pop() for _ in range(min(rows.num_free, len(waiting)))])
        rows.step()  # one token for every sequence; those that are done leave
    return wanted


# --- rollouts -> verdicts -> rewards ---------------------------------------------------------------------------------


def is_correct(prompt: Prompt, rollout: DecodeRow) -> float:
    """1 if the verifier finds the answer right. In a run this happens in a process that can be killed."""
    verdict = verifier.judge(prompt.text, decode_response(tokenizer, rollout.tokens), prompt.answer)
    return verdict.parts["correct"]


def rewards(correct_B: np.ndarray, length_B: np.ndarray) -> Tensor:
    """RLSP, arXiv:2502.06773, Eq. 1: R = alpha * correct + (1 - alpha) * R_explore, with R_explore = -C / length."""
    explore_B = explore.len_inv(length_B, LENGTH_SCALE)
    return torch.from_numpy(compose.compose(correct_B, explore_B, ALPHA, REWARD_CLIP).reward_B).float()


# --- rollouts and rewards -> loss -> weights -------------------------------------------------------------------------


def train(
    algorithm: Algorithm, options: AlgorithmConfig, updater: Updater, sequences: pack.Sequences, reward_B: Tensor
) -> dict[str, float]:
    """One optimizer update on one batch: advantages over the whole batch, then the loss, micro-batch by micro-batch."""
    length_B = torch.from_numpy(sequences.length_B)
    behaviour_N = torch.from_numpy(sequences.behaviour_N)  # log-probs under the policy that sampled
    mask_N = torch.isfinite(behaviour_N)
    batch = Rollouts(
        reward_B=reward_B,
        group_B=torch.from_numpy(sequences.group_B),
        length_B=length_B,
        behaviour_N=behaviour_N,
        mask_N=mask_N,
    )
    adv = algorithm.advantages(options, batch)
    kept_B = adv.keep_B.nonzero()[:, 0].numpy()  # GRPO leaves out groups whose rollouts all earned the same
    if not len(kept_B):
        return {"loss": 0.0, "entropy": 0.0}
    share_N = torch.zeros(len(behaviour_N))  # what each token counts in the mean: summed losses are the batch's loss
    share_N[adv.keep_B.repeat_interleave(length_B)] = maths.shares(length_B[kept_B], options.aggregation)
    loss_sum = entropy_sum = 0.0
    for members in pack.plan_micro_batches(sequences.total_B[kept_B], TOKENS_PER_MICROBATCH):
        numbers = [int(kept_B[i]) for i in members]
        packed = pack.pack_sequences(sequences, numbers)  # end to end in one row, without padding
        out = policy.outputs(packed, temperature=1.0)
        at_R = torch.from_numpy(packed.flat_R)  # where in the batch each token of the micro-batch stands
        tokens = Tokens(
            logp=out.logp_R,
            old=out.logp_R.detach(),  # one update a batch: its policy is still the one that began the step
            behaviour=behaviour_N[at_R],
            adv=adv.adv_N[at_R],
            mask=mask_N[at_R],
            share=share_N[at_R],
        )
        loss, _ = algorithm.token_loss(options, tokens)
        loss.backward()
        loss_sum += float(loss.detach())
        entropy_sum += float((out.entropy_R * tokens.share).sum())
    updater.step("minimal_loop")  # clips the gradient, steps, clears it; raises DivergedError for NaN
    return {"loss": loss_sum, "entropy": entropy_sum}


def as_sequences(pairs: list[tuple[np.ndarray, np.ndarray]], logprobs: np.ndarray, group_size: int) -> pack.Sequences:
    """Pairs of prompt ids and response ids as the arrays of a batch."""
    return pack.Sequences(
        prompts=[prompt for prompt, _ in pairs],
        responses=[response for _, response in pairs],
        behaviour_N=logprobs.astype(np.float32),
        versions_N=np.zeros(len(logprobs), np.int32),
        group_B=np.arange(len(pairs)) // group_size,
        rollout_B=np.arange(len(pairs)) % group_size,
    )


def evaluate(when: str, version: int) -> float:
    """Share of right answers on held-out prompts (pass@1), one rollout of each, with the present weights."""
    publish(version)
    prompts = [task.prompt("test", index) for index in range(args.test_prompts)]
    pass_1 = float(np.mean([is_correct(p, r) for p, r in zip(prompts, sample(prompts, 1), strict=True)]))
    print(f"{when}: held-out pass@1 {100 * pass_1:.1f} %   ({time.monotonic() - started:.0f} s)\n")
    return pass_1


# --- stage 1: imitate demonstrations ---------------------------------------------------------------------------------

print("stage  step    loss  entropy  reward  correct  tokens")
optimizer = OptimizerConfig(name="muon", muon_lr=0.02, lr=8e-3, warmup_steps=50, schedule="cosine", floor=0.05)
updater = Updater(optimizer, policy, critic_lr=0.0, num_updates=args.sft_steps)
for step in range(1, args.sft_steps + 1):
    shown = [task.demonstration(index) for index in range((step - 1) * 32, step * 32)]
    pairs = [(encode_prompt(tokenizer, prompt), encode_response(tokenizer, text)) for prompt, text in shown]
    nobody_N = np.zeros(sum(len(response) for _, response in pairs))  # no policy sampled them; SFT does not ask
    figures = train(sft, sft.Config(), updater, as_sequences(pairs, nobody_N, 1), torch.zeros(len(pairs)))
    if step % max(1, args.sft_steps // 5) == 0:
        print(f"sft    {step:4d}  {figures['loss']:6.3f}  {figures['entropy']:7.3f}", flush=True)
before = evaluate("after SFT", args.sft_steps)

# --- stage 2: reinforcement learning on the model's own rollouts -----------------------------------------------------

options = grpo.Config()
updater = Updater(OptimizerConfig(lr=4e-4), policy, critic_lr=0.0, num_updates=args.rl_steps)
for step in range(1, args.rl_steps + 1):
    first = (args.sft_steps * 32) + (step - 1) * args.prompts  # prompts that no demonstration has shown
    prompts = [task.prompt("train", first + i) for i in range(args.prompts)]
    rollouts = sample(prompts, args.rollouts)
    correct_B = np.array([is_correct(prompts[i // args.rollouts], rollout) for i, rollout in enumerate(rollouts)])
    reward_B = rewards(correct_B, np.array([float(len(rollout.tokens)) for rollout in rollouts]))
    pairs = [(np.array(r.prompt_ids, np.int32), np.array(r.tokens, np.int32)) for r in rollouts]
    logprobs_N = np.array([logprob for rollout in rollouts for logprob in rollout.logprobs])
    figures = train(grpo, options, updater, as_sequences(pairs, logprobs_N, args.rollouts), reward_B)
    publish(args.sft_steps + step)  # synchronous: the next batch is sampled from these weights (lag 0)
    tokens_mean = len(logprobs_N) / len(rollouts)
    print(
        f"grpo   {step:4d}  {figures['loss']:6.3f}  {figures['entropy']:7.3f}  {float(reward_B.mean()):6.3f}"
        f"  {100 * correct_B.mean():5.1f} %  {tokens_mean:6.1f}",
        flush=True,
    )
after = evaluate("after GRPO", args.sft_steps + args.rl_steps)

# --- weights ---------------------------------------------------------------------------------------------------------

policy.model.save_pretrained(args.out / "final")  # AutoModelForCausalLM.from_pretrained and vLLM load it
tokenizer.save_pretrained(args.out / "final")
print(f"pass@1 {100 * before:.1f} % -> {100 * after:.1f} %; the model is in {args.out / 'final'}")
