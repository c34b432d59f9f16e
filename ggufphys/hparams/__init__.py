"""What does a file say of its model?"""
