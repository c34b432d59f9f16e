"""The subcommands that need nothing but the standard library."""
