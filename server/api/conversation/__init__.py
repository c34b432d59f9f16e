"""What text does a conversation become, and what does an answer's text say? Templates, tools, control tokens."""
