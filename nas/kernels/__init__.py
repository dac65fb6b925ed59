"""Compiled kernels for CPUs, where PyTorch's own are slow; without a compiler PyTorch's own are used."""
