"""The settings of a run: what they are, how a TOML file becomes them, and how they are shown.

In the order in which one meets them:

    schema.py     every section and setting, with its meaning, unit and range (msgspec structs, no I/O)
    ranges.py     the range of a number and the shape of a text, declared in the annotation of a setting
    loader.py     reads one TOML file and `key=value` overrides; refuses unknown keys with the nearest known name
    flatten.py    a config as one flat mapping of dotted keys to values
    reference.py  writes docs/configuration.md from the schema

The names that other rooms need are offered here: `from rlsp_async.config import RunConfig, load`.
"""

from rlsp_async.config.loader import (
    LATER_SETTINGS,
    convert,
    decides_the_weights,
    load,
    load_environment,
    load_lora,
    load_success_replay,
    num_settings,
    sections_to_keep,
    tables,
    to_toml,
)
from rlsp_async.config.schema import (
    AlgorithmChoice,
    EnvironmentConfig,
    EvaluationConfig,
    LearnerConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    PromptsConfig,
    ReplayConfig,
    RewardConfig,
    RunConfig,
    SamplerConfig,
    SamplingConfig,
    ScratchModelConfig,
    Section,
    StageConfig,
    SuccessReplayConfig,
    TaskConfig,
    TemperatureConfig,
    VerifierConfig,
)

__all__ = [
    "LATER_SETTINGS",
    "AlgorithmChoice",
    "EnvironmentConfig",
    "EvaluationConfig",
    "LearnerConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PromptsConfig",
    "ReplayConfig",
    "RewardConfig",
    "RunConfig",
    "SamplerConfig",
    "SamplingConfig",
    "ScratchModelConfig",
    "Section",
    "StageConfig",
    "SuccessReplayConfig",
    "TaskConfig",
    "TemperatureConfig",
    "VerifierConfig",
    "convert",
    "decides_the_weights",
    "load",
    "load_environment",
    "load_lora",
    "load_success_replay",
    "num_settings",
    "sections_to_keep",
    "tables",
    "to_toml",
]
