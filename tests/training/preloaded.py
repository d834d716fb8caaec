"""Imported by the process that ranks are forked from, and by no test: DeepSpeed, and what its engine imports when it
starts, for a rank would take seconds for it."""

from __future__ import annotations

import importlib
from contextlib import suppress

import torch

from itemic.errors import ConfigError
from itemic.training.deepspeed import library

if torch.version.cuda is None:  # it looks for GPUs, and a process that is forked after that can't use them
    with suppress(ConfigError, ImportError):
        library()
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
