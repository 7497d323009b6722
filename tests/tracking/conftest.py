from cli_fixtures import climber, empty_store, shell, workplace
from sweep_fixtures import fake_fit, write_sweep

__all__ = ["climber", "empty_store", "fake_fit", "shell", "workplace", "write_sweep"]
