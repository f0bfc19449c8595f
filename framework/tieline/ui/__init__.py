"""Pages in the browser: the server's part, what every page has, and the framework's own pages."""
