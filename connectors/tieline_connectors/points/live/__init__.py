"""The newest value of every point, and what a page selects of them: pure, without topics and stores."""
