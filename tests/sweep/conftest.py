from sweep_fixtures import empty_store, fake_fit, write_sweep

__all__ = ["empty_store", "fake_fit", "write_sweep"]
