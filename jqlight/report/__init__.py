"""Reading runs: from an MLflow store to tables, figures and one HTML page that compare them."""
