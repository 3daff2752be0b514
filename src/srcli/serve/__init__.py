"""`srcli serve`: a page and an HTTP interface for people without a terminal."""
