"""One thread a test process: the tests run side by side, and small tensors gain nothing from more."""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
