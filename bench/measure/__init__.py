"""Was the prediction right? A model run in a child process, phase by phase: predicted against measured."""
