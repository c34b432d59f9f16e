"""What is this machine, and how is a process started on it?"""
