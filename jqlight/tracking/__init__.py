"""Writing runs: the run's folder first, then MLflow and any other Lightning logger."""
