"""Training of reasoning language models on the Tsallis loss family J_Q (Lin & Ie 2026, arXiv 2604.25907)."""

__version__ = "0.2.0"
