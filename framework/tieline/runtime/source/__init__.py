"""① and ③ to ⑥: receive, transform, convert, produce, save the position."""
