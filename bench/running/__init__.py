"""How do benches run other processes, and what is told of them?"""
