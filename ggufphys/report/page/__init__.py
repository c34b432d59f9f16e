"""The report of one file as a page of HTML that needs nothing beside itself."""
