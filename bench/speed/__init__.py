"""Was the predicted speed right? Models read and generate, at several depths and batches, beside what was predicted."""
