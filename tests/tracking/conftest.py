from cli_fixtures import climber, empty_store, shell, workplace

__all__ = ["climber", "empty_store", "shell", "workplace"]
