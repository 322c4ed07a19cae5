"""Figures and documents from views: the same on the page, in a file that opens offline, and as Markdown."""
