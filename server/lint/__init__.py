"""What is wrong with a file's chat template? Conversations rendered, and what they show."""
