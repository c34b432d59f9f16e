"""What do the layers of models consist of? The blocks that builders of graphs share."""
