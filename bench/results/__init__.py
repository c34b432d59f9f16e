"""Raw results: what commands printed on which machine, a record a run, kept as lines of JSON."""
