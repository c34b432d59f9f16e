"""Prediction against measurement, on the running machine."""
