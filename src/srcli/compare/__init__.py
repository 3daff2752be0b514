"""Pictures beside each other: a page for the browser with nothing outside of it, and contact sheets."""
