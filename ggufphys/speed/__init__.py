"""How long will it take? What a phase computes and moves (costs), and what the machine can do."""
