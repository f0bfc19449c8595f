"""What is stored of a reading, and in which interval it lies; pure."""
