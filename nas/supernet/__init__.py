"""Supernets: a space run with all its options at once, or along one path."""

from nas.supernet.mixture import Mixture
from nas.supernet.supernet import Supernet

__all__ = ["Mixture", "Supernet"]
