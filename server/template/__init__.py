"""What text does a conversation become? Chat templates, and what they may do."""
