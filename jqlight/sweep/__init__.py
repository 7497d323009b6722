"""Sweeps: one file of axes to many runs, started, watched, resumed and kept under one MLflow parent run."""
