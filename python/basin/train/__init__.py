"""Estimators, where Azure's programs import them from."""
