"""Compare pictures: a self-contained page for the browser, and contact sheets."""
