"""How long will it take? What a phase computes and moves (costs), what a machine can do (rates), and both together."""
