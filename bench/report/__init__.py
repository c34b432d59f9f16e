"""What do recorded results say together? One page of a machine, in HTML and in Markdown."""
