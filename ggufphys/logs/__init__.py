"""What does a log of llama.cpp say that it allocated, and how was it run?"""
