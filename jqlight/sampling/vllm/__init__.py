"""The vLLM engine inside the trainer's process, and what keeps the two from disturbing each other."""
