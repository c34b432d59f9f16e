"""Several models behind one address: which are loaded, and what belongs to which."""
