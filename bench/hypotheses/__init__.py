"""What do people claim of local inference, and does it hold here? `ggufphys bench hypotheses`."""
