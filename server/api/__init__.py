"""The endpoints: JSON in, JSON or server-sent events out, errors in OpenAI's shape."""
