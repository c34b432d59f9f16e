"""What does the server hold and how fast is it, predicted and as measured? For its pages, logs and Prometheus."""
