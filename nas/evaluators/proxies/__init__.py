"""Zero-cost proxies: scores of untrained networks."""

from nas.evaluators.proxies import jacobian, naswot, saliency, size, synflow, zen  # they register themselves
from nas.evaluators.proxies.proxy import PROXIES, Proxy

__all__ = ["PROXIES", "Proxy", "jacobian", "naswot", "saliency", "size", "synflow", "zen"]
