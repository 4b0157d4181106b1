"""LotaBots: an on-premise inference appliance around NVIDIA Triton."""

__version__ = "0.1.0"
